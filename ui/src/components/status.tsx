import { checkIcon, closeIcon, kernelIcon, refreshIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';
import type { LabIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import * as format from '../format';
import { goneIcon, queuedIcon, timeoutIcon } from '../icons';
import { position } from '../messages';
import type { Phase } from '../run';
import type { IRun, ITiming } from '../tokens';

export interface IStatusProps {
  run: IRun;
  phase: Phase;
  /** Seconds since it was started. */
  seconds: number | null;
  /** Bytes of outputs. */
  size: number;
  /** Runs that go first. */
  ahead: number | null;
  /** First line of the cell at work, where the notebook is open. */
  line: string;
  timing: ITiming;
  trans: TranslationBundle;
}

/** One mark for each state, so that colour never tells alone. */
const MARKS: { readonly [phase in Phase]: LabIcon } = {
  queued: queuedIcon,
  starting: kernelIcon,
  running: runIcon,
  lost: refreshIcon,
  ok: checkIcon,
  error: closeIcon,
  timeout: timeoutIcon,
  cancelled: stopIcon,
  gone: goneIcon
};

export function word(phase: Phase, trans: TranslationBundle): string {
  switch (phase) {
    case 'queued':
      return trans.__('queued');
    case 'starting':
      return trans.__('starting kernel');
    case 'running':
      return trans.__('running');
    case 'lost':
      return trans.__('reconnecting');
    case 'ok':
      return trans.__('ok');
    case 'error':
      return trans.__('error');
    case 'timeout':
      return trans.__('timeout');
    case 'cancelled':
      return trans.__('cancelled');
    case 'gone':
      return trans.__('forgotten');
  }
}

/** The state of a run in a word and a mark, and the cell that it has ended in. */
export function Badge(props: {
  phase: Phase;
  cell: number | null | undefined;
  trans: TranslationBundle;
}): JSX.Element {
  const { phase, cell, trans } = props;
  const Mark = MARKS[phase].react;
  const said = word(phase, trans);
  return (
    <span className={`jp-NbExec-badge jp-mod-${phase}`}>
      <Mark tag="span" aria-hidden="true" />
      {typeof cell === 'number' ? trans.__('%1 in cell %2', said, position(cell)) : said}
    </span>
  );
}

/** The state of a run in one line, and how far it has come. */
export function Status(props: IStatusProps): JSX.Element {
  const { run, phase, trans } = props;
  const { done, total } = run.progress;
  const time = run.ended ?? run.created;
  const isActive = ['queued', 'starting', 'running', 'lost'].includes(phase);
  const facts = [
    props.ahead ? trans._n('%1 run goes first', '%1 runs go first', props.ahead) : '',
    total ? trans.__('%1/%2 cells', done, total) : '',
    props.seconds === null ? '' : format.duration(props.seconds),
    !isActive && props.size ? format.size(props.size) : ''
  ].filter(Boolean);
  return (
    <div className="jp-NbExec-status">
      <div className="jp-NbExec-statusLine">
        <Badge phase={phase} cell={run.error?.cell} trans={trans} />
        <span className="jp-NbExec-facts">{facts.join(' · ')}</span>
        <time className="jp-NbExec-when" dateTime={time} title={format.exactTime(time)}>
          {format.time(time)}
        </time>
      </div>
      {isActive && (
        <>
          <progress
            max={Math.max(total, 1)}
            value={phase === 'queued' ? 0 : done}
            aria-label={trans.__('Cells done')}
          />
          <div className="jp-NbExec-line">
            {run.progress.cell === null
              ? '\u00a0'
              : `${trans.__('Cell %1', position(run.progress.cell))}${props.line ? ` · ${props.line}` : ''}`}
          </div>
        </>
      )}
      {!isActive && <Timing timing={props.timing} trans={trans} />}
      <div className="jp-NbExec-hidden" role="status">
        {announcement(props)}
      </div>
    </div>
  );
}

/** How long the phases took. */
function Timing(props: { timing: ITiming; trans: TranslationBundle }): JSX.Element | null {
  const { timing, trans } = props;
  const phases: [string, number | undefined][] = [
    [trans.__('waiting'), timing.queue],
    [trans.__('kernel'), timing.kernel],
    [trans.__('cells'), timing.run]
  ];
  const known = phases.filter(([, seconds]) => seconds !== undefined);
  if (!known.length) {
    return null;
  }
  return (
    <div className="jp-NbExec-line">
      {known.map(([phase, seconds]) => `${phase} ${format.duration(seconds!)}`).join(' · ')}
    </div>
  );
}

/** What is read aloud: the start, every tenth, the end. */
function announcement(props: IStatusProps): string {
  const { phase, trans } = props;
  const { done, total } = props.run.progress;
  const said = word(phase, trans);
  if (phase !== 'running' || !total) {
    return said;
  }
  const percent = Math.floor((10 * done) / total) * 10;
  return percent ? `${said} ${percent} %` : said;
}
