import type { LabIcon } from '@jupyterlab/ui-components';
import React from 'react';

/** A button that is an icon; its label is read aloud, and shown as a tip. */
export function IconButton(props: {
  icon: LabIcon;
  label: string;
  isDisabled?: boolean;
  hasMenu?: boolean;
  onClick: (event: React.MouseEvent<HTMLButtonElement>) => void;
}): JSX.Element {
  return (
    <button
      type="button"
      className="jp-NbExec-iconButton"
      aria-label={props.label}
      aria-haspopup={props.hasMenu ? 'menu' : undefined}
      title={props.label}
      // It keeps the focus, should it have it.
      aria-disabled={props.isDisabled || undefined}
      onClick={event => !props.isDisabled && props.onClick(event)}
    >
      <props.icon.react tag="span" />
    </button>
  );
}
