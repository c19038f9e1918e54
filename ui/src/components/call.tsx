import { checkIcon, copyIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import { endpointCall, SNIPPETS } from '../snippets';
import type { IEndpoint } from '../tokens';
import { IconButton } from './button';
import { useCopied } from './copied';

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

/** The element that holds the call. */
export const CALL_ID = 'nbexec-call';

/** The tab of a kind of call. */
export function tabId(kind: string): string {
  return `${CALL_ID}-${Object.keys(SNIPPETS).indexOf(kind)}`;
}

/** Which call is shown, and the button that copies it. */
export function CallTools(props: ICallProps): JSX.Element {
  const { kind, text, trans } = props;
  const [isCopied, setCopied] = useCopied(text);
  const kinds = Object.keys(SNIPPETS);
  const move = (event: React.KeyboardEvent) => {
    const next = kinds[indexAfter(event.key, kinds.indexOf(kind), kinds.length)];
    if (next) {
      event.preventDefault();
      props.onKind(next);
      (event.currentTarget.querySelector(`[data-kind="${next}"]`) as HTMLElement | null)?.focus();
    }
  };
  const hint = trans.__('Reads the token from JUPYTER_TOKEN.');
  return (
    <div className="jp-NbExec-callTools">
      <div role="tablist" aria-label={trans.__('Language of the call')} onKeyDown={move}>
        {kinds.map(name => (
          <button
            key={name}
            type="button"
            role="tab"
            id={tabId(name)}
            data-kind={name}
            aria-controls={CALL_ID}
            aria-selected={name === kind}
            tabIndex={name === kind ? 0 : -1}
            onClick={() => props.onKind(name)}
          >
            {name}
          </button>
        ))}
      </div>
      <button
        type="button"
        className="jp-NbExec-iconButton"
        aria-label={isCopied ? trans.__('Copied') : trans.__('Copy')}
        aria-describedby={`${CALL_ID}-hint`}
        title={`${trans.__('Copy')}: ${hint}`}
        onClick={() => {
          props.onCopy(text);
          setCopied();
        }}
      >
        {isCopied ? <checkIcon.react tag="span" /> : <copyIcon.react tag="span" />}
      </button>
      <span id={`${CALL_ID}-hint`} hidden>
        {hint}
      </span>
      <span className="jp-NbExec-hidden" role="status">
        {isCopied ? trans.__('Copied') : ''}
      </span>
    </div>
  );
}

/** Which tab a key goes to; -1 if it goes nowhere. */
function indexAfter(key: string, index: number, count: number): number {
  switch (key) {
    case 'ArrowRight':
      return (index + 1) % count;
    case 'ArrowLeft':
      return (index - 1 + count) % count;
    case 'Home':
      return 0;
    case 'End':
      return count - 1;
    default:
      return -1;
  }
}

/** What belongs to the call: the pages about it, and the notebook's endpoints. */
export function CallNotes(props: ICallProps): JSX.Element {
  const { trans } = props;
  return (
    <div className="jp-NbExec-callNotes">
      <div className="jp-NbExec-links">
        <a href={props.docsUrl} target="_blank" rel="noreferrer">
          {trans.__('API reference')}
        </a>
        <a href={props.openApiUrl} target="_blank" rel="noreferrer">
          OpenAPI
        </a>
      </div>
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
