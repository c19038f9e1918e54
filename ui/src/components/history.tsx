import { checkIcon, copyIcon, ellipsesIcon, refreshIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import * as format from '../format';
import type { Phase } from '../run';
import type { IRun } from '../tokens';
import { IconButton } from './button';
import { useCopied } from './copied';
import { Badge } from './status';

export interface IHistoryProps {
  runs: IRun[] | null;
  hasMore: boolean;
  shownId: string | null;
  isBusy: boolean;
  onShow: (run: IRun) => void;
  onAgain: (run: IRun) => void;
  onCopy: (run: IRun) => void;
  onMenu: (run: IRun, x: number, y: number) => void;
  onMore: () => void;
  trans: TranslationBundle;
}

/** The runs of a notebook, by day. */
export function History(props: IHistoryProps): JSX.Element {
  const { runs, trans } = props;
  if (runs === null || !runs.length) {
    return (
      <p className="jp-NbExec-note">
        {runs === null ? trans.__('Reading…') : trans.__('This notebook has not been run as a service yet.')}
      </p>
    );
  }
  const now = new Date();
  const days: [string, IRun[]][] = [];
  for (const run of runs) {
    const day = format.day(run.created, trans, now);
    if (days[days.length - 1]?.[0] !== day) {
      days.push([day, []]);
    }
    days[days.length - 1][1].push(run);
  }
  return (
    <div className="jp-NbExec-history">
      <table>
        <thead className="jp-NbExec-hidden">
          <tr>
            <th scope="col">{trans.__('Time')}</th>
            <th scope="col">{trans.__('Status')}</th>
            <th scope="col">{trans.__('Values')}</th>
            <th scope="col">{trans.__('Actions')}</th>
          </tr>
        </thead>
        {days.map(([day, ofDay]) => (
          <tbody key={ofDay[0].id}>
            <tr>
              <th scope="colgroup" colSpan={4}>
                {day}
              </th>
            </tr>
            {ofDay.map(run => (
              <Row key={run.id} {...props} run={run} isShown={run.id === props.shownId} />
            ))}
          </tbody>
        ))}
      </table>
      {props.hasMore && (
        <button type="button" className="jp-NbExec-link" onClick={props.onMore}>
          {trans.__('Show older runs')}
        </button>
      )}
    </div>
  );
}

const Row = React.memo(
  function Row(props: IHistoryProps & { run: IRun; isShown: boolean }): JSX.Element {
    const { run, trans } = props;
    const time = format.time(run.created);
    const exact = format.exactTime(run.created);
    const given = format.values(run.parameters);
    const [isCopied, setCopied] = useCopied();
    return (
      <tr
        className={props.isShown ? 'jp-mod-shown' : ''}
        onContextMenu={event => {
          event.preventDefault();
          event.stopPropagation();
          props.onMenu(run, event.clientX, event.clientY);
        }}
      >
        <td>
          <button
            type="button"
            className="jp-NbExec-link"
            aria-current={props.isShown || undefined}
            title={trans.__('Show the result of this run')}
            aria-label={exact}
            onClick={() => props.onShow(run)}
          >
            {time}
          </button>
        </td>
        <td>
          <Badge phase={phaseOf(run)} cell={run.error?.cell} trans={trans} />
          {run.duration !== null && <span className="jp-NbExec-facts"> {format.duration(run.duration)}</span>}
          {run.user !== null && <span className="jp-NbExec-facts"> {trans.__('by %1', run.user)}</span>}
        </td>
        <td className="jp-NbExec-given" title={given}>
          {given}
        </td>
        <td className={`jp-NbExec-rowActions${isCopied ? ' jp-mod-copied' : ''}`}>
          <div>
            <IconButton
              icon={refreshIcon}
              label={trans.__('Run again with the values of %1', exact)}
              isDisabled={props.isBusy}
              onClick={() => props.onAgain(run)}
            />
            <IconButton
              icon={isCopied ? checkIcon : copyIcon}
              label={isCopied ? trans.__('Copied') : trans.__('Copy the run of %1 as a call', exact)}
              onClick={() => {
                props.onCopy(run);
                setCopied();
              }}
            />
            <IconButton
              icon={ellipsesIcon}
              label={trans.__('More about the run of %1', exact)}
              hasMenu
              onClick={event => {
                const box = event.currentTarget.getBoundingClientRect();
                props.onMenu(run, box.left, box.bottom);
              }}
            />
            <span className="jp-NbExec-hidden" role="status">
              {isCopied ? trans.__('Copied') : ''}
            </span>
          </div>
        </td>
      </tr>
    );
  },
  (old, next) =>
    old.run === next.run &&
    old.isShown === next.isShown &&
    old.isBusy === next.isBusy &&
    old.trans === next.trans
);

/** The state of a run that is not followed. */
export function phaseOf(run: IRun): Phase {
  switch (run.status) {
    case 'queued':
    case 'running':
    case 'cancelled':
      return run.status;
    case 'succeeded':
      return 'ok';
    default:
      return run.error?.code === 'timeout' ? 'timeout' : 'error';
  }
}
