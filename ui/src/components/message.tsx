import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import type { ActionId, IMessage } from '../messages';

/** A message at the place that it is about, with what one can do. */
export function Message(props: {
  message: IMessage;
  onAction: (action: ActionId, message: IMessage) => void;
  trans: TranslationBundle;
}): JSX.Element {
  const { message, trans } = props;
  return (
    <div
      className={`jp-NbExec-message jp-mod-${message.kind}`}
      role={message.kind === 'error' ? 'alert' : 'status'}
    >
      <div>{message.text}</div>
      {message.command && (
        <pre tabIndex={0}>
          <code>{message.command}</code>
        </pre>
      )}
      {message.detail && <div className="jp-NbExec-detail">{message.detail}</div>}
      {message.actions.length > 0 && (
        <div className="jp-NbExec-actions">
          {message.actions.map(action => (
            <button
              key={action}
              type="button"
              className="jp-NbExec-link"
              onClick={() => props.onAction(action, message)}
            >
              {label(action, trans)}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

function label(action: ActionId, trans: TranslationBundle): string {
  switch (action) {
    case 'refresh':
      return trans.__('Try again');
    case 'run':
      return trans.__('Run again');
    case 'run-without-limit':
      return trans.__("Run with the server's own limit");
    case 'cancel':
      return trans.__('Cancel the run');
    case 'save':
      return trans.__('Save the notebook');
    case 'go-to-cell':
      return trans.__('Go to cell');
    case 'settings':
      return trans.__('Settings');
    case 'make-parameters-cell':
      return trans.__('Make the selected cell the parameters cell');
  }
}
