import type { TranslationBundle } from '@jupyterlab/translation';
import { ApiError, ConnectionError } from './api';
import type { RunModel } from './run';
import { NotCancelled, NotSaved } from './service';
import type { ICellReference } from './tokens';

/** What a message offers to do. */
export type ActionId =
  | 'refresh'
  | 'run'
  | 'run-without-limit'
  | 'cancel'
  | 'save'
  | 'go-to-cell'
  | 'settings'
  | 'make-parameters-cell';

/** What went wrong, or what to know: where, and what next. */
export interface IMessage {
  kind: 'error' | 'warning' | 'info';
  text: string;
  /** A command for a terminal that helps. */
  command?: string;
  /** What the server says of it, where it says more. */
  detail?: string;
  cell?: ICellReference;
  actions: ActionId[];
}

/** The position of a cell as people count. */
export function position(cell: number): number {
  return cell + 1;
}

/** Say why a request failed. */
export function ofFailure(
  failure: Error,
  context: { path: string; isOpen: boolean },
  trans: TranslationBundle
): IMessage {
  if (failure instanceof NotSaved) {
    return {
      kind: 'error',
      text: trans.__('The notebook could not be saved, so it was not run.'),
      actions: ['save']
    };
  }
  if (failure instanceof NotCancelled) {
    const isLost = failure.reason instanceof ConnectionError;
    return {
      kind: 'error',
      text: isLost
        ? trans.__('This run was not cancelled, since the server could not be reached.')
        : trans.__('This run was not cancelled.'),
      detail: isLost ? undefined : failure.message,
      actions: ['cancel']
    };
  }
  if (failure instanceof ConnectionError) {
    return {
      kind: 'error',
      text: trans.__('The server cannot be reached.'),
      actions: ['refresh']
    };
  }
  if (failure instanceof ApiError) {
    return ofRefusal(failure, context, trans);
  }
  return {
    kind: 'error',
    text: trans.__('This did not work.'),
    detail: failure.message,
    actions: ['refresh']
  };
}

function ofRefusal(
  failure: ApiError,
  context: { path: string; isOpen: boolean },
  trans: TranslationBundle
): IMessage {
  const { code, status, message } = failure;
  switch (code) {
    case 'notebook_not_found':
      return {
        kind: 'error',
        text: trans.__('There is no notebook %1 on the server any more.', context.path),
        actions: context.isOpen ? ['save', 'refresh'] : ['refresh']
      };
    case 'invalid_parameter':
      return {
        kind: 'error',
        text: trans.__('Some values were refused.'),
        detail: message.replace(/^[^:]*: /, ''),
        actions: []
      };
    case 'no_such_kernel':
      return {
        kind: 'error',
        text: trans.__('The kernel of this notebook is not installed here: choose another for this run.'),
        actions: []
      };
    case 'queue_full':
      return {
        kind: 'warning',
        text: failure.retryAfter
          ? trans.__('Too many runs are waiting already. Try again in %1 s.', failure.retryAfter)
          : trans.__('Too many runs are waiting already. Try again later.'),
        actions: ['run']
      };
    case 'notebook_unavailable':
    case 'out_of_resources':
    case 'server_overloaded':
      return {
        kind: 'warning',
        text: trans.__('The server cannot do this now. Try again later.'),
        detail: message,
        actions: ['run']
      };
    case 'run_not_found':
      return {
        kind: 'error',
        text: trans.__('The server has forgotten this run.'),
        actions: ['refresh']
      };
  }
  if (status === 403) {
    return {
      kind: 'error',
      text: trans.__('You may not run notebooks on this server.'),
      detail: message,
      actions: []
    };
  }
  if (code === '' && (status === 404 || status === 200)) {
    return {
      kind: 'error',
      text: trans.__('The server part of jupyter_nbexec is not running. Enable it, and restart the server:'),
      command: 'jupyter server extension enable jupyter_nbexec',
      actions: ['refresh']
    };
  }
  return { kind: 'error', text: message, actions: status >= 500 ? ['refresh'] : [] };
}

/** Say why a run did not succeed, and what to know of one that did; null where there is nothing. */
export function ofRun(model: RunModel, trans: TranslationBundle): IMessage | null {
  const { run, phase, failure } = model;
  if (failure && phase !== 'gone') {
    return {
      kind: 'error',
      text: trans.__('This run cannot be followed any more.'),
      detail: failure.message,
      actions: ['refresh']
    };
  }
  switch (phase) {
    case 'lost':
      return { kind: 'warning', text: trans.__('The run goes on; reconnecting…'), actions: [] };
    case 'gone':
      return { kind: 'error', text: trans.__('The server has forgotten this run.'), actions: ['run'] };
    case 'cancelled':
      return { kind: 'info', text: trans.__('This run was cancelled.'), actions: [] };
    case 'timeout':
    case 'error':
      return ofError(model, trans);
  }
  if (run.truncated) {
    return {
      kind: 'warning',
      text: trans.__('Outputs past the limits of the server were left out.'),
      actions: []
    };
  }
  return null;
}

function ofError(model: RunModel, trans: TranslationBundle): IMessage {
  const error = model.run.error!;
  const cell = error.cell === null ? undefined : { cell: error.cell, cell_id: error.cell_id };
  const goTo: ActionId[] = cell ? ['go-to-cell'] : [];
  const number = cell ? position(cell.cell!) : 0;
  if (error.ename === 'StdinNotImplementedError') {
    return {
      kind: 'error',
      text: trans.__('Cell %1 asks for input, which a service cannot give: make it a parameter.', number),
      cell,
      actions: goTo
    };
  }
  switch (error.code) {
    case 'cell_error': {
      // Kernels of other languages may say no more than a status, or nothing.
      const value = error.evalue?.split('\n')[0] ?? '';
      const reason = error.ename || value;
      return {
        kind: 'error',
        text: !cell
          ? error.message
          : reason
            ? trans.__('Cell %1 failed: %2', number, reason)
            : trans.__('Cell %1 failed.', number),
        detail: (error.ename && value) || undefined,
        cell,
        actions: [...goTo, 'run']
      };
    }
    case 'timeout':
      return {
        kind: 'error',
        // How long it could take is in the detail: what it took is another number.
        text: cell
          ? trans.__('Stopped in cell %1: its time was up.', number)
          : trans.__('Stopped: its time was up.'),
        detail: error.message,
        cell,
        actions: [...goTo, 'run-without-limit', 'settings']
      };
    case 'kernel_died':
      return {
        kind: 'error',
        text: trans.__('The kernel ended under the run, for want of memory perhaps.'),
        detail: error.message,
        cell,
        actions: goTo
      };
    case 'server_stopped':
      return {
        kind: 'error',
        text: trans.__('The server stopped before the run had ended.'),
        cell,
        actions: goTo
      };
    default:
      return { kind: 'error', text: error.message, cell, actions: goTo };
  }
}
