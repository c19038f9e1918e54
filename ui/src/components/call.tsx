import { checkIcon, copyIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import { endpointCall, SNIPPETS } from '../snippets';
import type { IEndpoint } from '../tokens';

export interface ICallProps {
  kind: string;
  text: string;
  openApiUrl: string;
  endpoints: IEndpoint[];
  endpointUrl: (endpoint: IEndpoint) => string;
  onKind: (kind: string) => void;
  onCopy: (text: string) => void;
  trans: TranslationBundle;
}

/** Which call is shown. */
export function CallTools(props: ICallProps): JSX.Element {
  const { kind, trans } = props;
  const kinds = Object.keys(SNIPPETS);
  const move = (event: React.KeyboardEvent) => {
    const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    if (step) {
      event.preventDefault();
      const next = kinds[(kinds.indexOf(kind) + step + kinds.length) % kinds.length];
      props.onKind(next);
      (event.currentTarget.querySelector(`[data-kind="${next}"]`) as HTMLElement | null)?.focus();
    }
  };
  return (
    <div className="jp-NbExec-callTools">
      <div role="tablist" aria-label={trans.__('Language of the call')} onKeyDown={move}>
        {kinds.map(name => (
          <button
            key={name}
            type="button"
            role="tab"
            data-kind={name}
            aria-selected={name === kind}
            tabIndex={name === kind ? 0 : -1}
            onClick={() => props.onKind(name)}
          >
            {name}
          </button>
        ))}
      </div>
    </div>
  );
}

/** What belongs to the call: the button that copies it, where its token comes from, the notebook's endpoints. */
export function CallNotes(props: ICallProps): JSX.Element {
  const { trans } = props;
  const [copied, setCopied] = React.useState('');
  const isCopied = copied === props.text;
  return (
    <div className="jp-NbExec-callNotes">
      {props.endpoints.length > 0 && (
        <table>
          <caption>{trans.__('Cells that can be called')}</caption>
          <tbody>
            {props.endpoints.map(endpoint => {
              const call = endpointCall(props.endpointUrl(endpoint), endpoint.method);
              const name = `${endpoint.method} ${endpoint.path}`;
              return (
                <tr key={name}>
                  <th scope="row">
                    <code>{name}</code>
                  </th>
                  <td>
                    <button
                      type="button"
                      className="jp-NbExec-iconButton"
                      aria-label={trans.__('Copy the call of %1', name)}
                      title={call}
                      onClick={() => props.onCopy(call)}
                    >
                      <copyIcon.react tag="span" />
                    </button>
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      <p className="jp-NbExec-note">
        <button
          type="button"
          className="jp-NbExec-copy"
          onClick={() => {
            props.onCopy(props.text);
            setCopied(props.text);
          }}
        >
          {isCopied ? <checkIcon.react tag="span" /> : <copyIcon.react tag="span" />}
          {isCopied ? trans.__('Copied') : trans.__('Copy')}
        </button>
        <span>{trans.__('Reads the token from JUPYTER_TOKEN.')}</span>
        <a href={props.openApiUrl} target="_blank" rel="noreferrer">
          OpenAPI
        </a>
      </p>
    </div>
  );
}
