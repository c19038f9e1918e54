import { LabIcon, launchIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import { duration } from '../format';
import { position } from '../messages';
import type { ICellReference } from '../tokens';

/** Which cell the outputs below are of. */
export function CellHeader(props: {
  cell: ICellReference;
  isRunning: boolean;
  seconds: number | null;
  onGo: ((cell: ICellReference) => void) | null;
  trans: TranslationBundle;
}): JSX.Element {
  const { cell, trans } = props;
  const name = cell.cell === null ? trans.__('Values') : trans.__('Cell %1', position(cell.cell));
  return (
    <div className="jp-NbExec-cellHeader">
      {props.onGo && cell.cell !== null ? (
        <button
          type="button"
          className="jp-NbExec-link"
          title={trans.__('Go to this cell of the notebook')}
          onClick={() => props.onGo!(cell)}
        >
          {name}
          <launchIcon.react tag="span" />
        </button>
      ) : (
        <span>{name}</span>
      )}
      <span className="jp-NbExec-facts">
        {props.isRunning ? trans.__('running…') : props.seconds === null ? '' : duration(props.seconds)}
      </span>
    </div>
  );
}

export interface IResultAction {
  label: string;
  icon: LabIcon;
  onClick: () => void;
}

/** What one can do with a run that has ended. */
export function ResultActions(props: { actions: IResultAction[] }): JSX.Element {
  return (
    <div className="jp-NbExec-actions">
      {props.actions.map(action => (
        <button key={action.label} type="button" className="jp-NbExec-link" onClick={action.onClick}>
          <action.icon.react tag="span" />
          {action.label}
        </button>
      ))}
    </div>
  );
}
