import { checkIcon, copyIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import { endpointCall, SNIPPETS } from '../snippets';
import type { IEndpoint } from '../tokens';
import { IconButton } from './button';

export interface ICallProps {
  kind: string;
  text: string;
  openApiUrl: string;
  docsUrl: string;
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

/** Milliseconds for which it is said that something was copied. */
const COPIED = 3000;

/** What belongs to the call: the button that copies it, where its token comes from, the notebook's endpoints. */
export function CallNotes(props: ICallProps): JSX.Element {
  const { trans } = props;
  const [copied, setCopied] = React.useState('');
  const isCopied = copied === props.text;
  React.useEffect(() => {
    const timer = setTimeout(() => setCopied(''), COPIED);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <div className="jp-NbExec-callNotes">
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
        <a href={props.docsUrl} target="_blank" rel="noreferrer">
          {trans.__('API reference')}
        </a>
        <a href={props.openApiUrl} target="_blank" rel="noreferrer">
          OpenAPI
        </a>
      </p>
      {props.endpoints.length > 0 && <Endpoints {...props} />}
    </div>
  );
}

/** The cells that can be called by themselves, with their calls. */
function Endpoints(props: ICallProps): JSX.Element {
  const { trans } = props;
  return (
    <section className="jp-NbExec-endpoints" aria-label={trans.__('Cells that can be called')}>
      <h3>{trans.__('Cells that can be called')}</h3>
      <ul>
        {props.endpoints.map(endpoint => {
          const name = `${endpoint.method} ${endpoint.path}`;
          const call = endpointCall(props.endpointUrl(endpoint), endpoint.method);
          return (
            <li key={name}>
              <div>
                <code>{name}</code>
                <IconButton
                  icon={copyIcon}
                  label={trans.__('Copy the call of %1', name)}
                  onClick={() => props.onCopy(call)}
                />
              </div>
              <pre tabIndex={0}>{call}</pre>
            </li>
          );
        })}
      </ul>
    </section>
  );
}
