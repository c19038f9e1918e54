import { ApiError, ConnectionError } from '../api';
import { ofFailure, ofRun, position } from '../messages';
import { RunModel } from '../run';
import { NotCancelled, NotSaved } from '../service';
import type { IRun } from '../tokens';
import { aRun, ENDED, FakeServer, RUNNING, trans } from './fakes';

const CONTEXT = { path: 'a.ipynb', isOpen: true };

/** Every row of the table of errors: what is shown, and what is offered. */
it.each<[string, Error, RegExp, string[]]>([
  ['not saved', new NotSaved(), /could not be saved/, ['save']],
  ['no connection', new ConnectionError('x'), /cannot be reached/, ['refresh']],
  [
    'not cancelled, without a connection',
    new NotCancelled(new ConnectionError('x')),
    /was not cancelled, since/,
    ['cancel']
  ],
  ['not cancelled', new NotCancelled(new Error('x')), /was not cancelled\./, ['cancel']],
  ['no server part', new ApiError(404, '', 'Not Found'), /server part .* not running/, ['refresh']],
  ['not allowed', new ApiError(403, 'forbidden', 'no'), /may not run notebooks/, []],
  [
    'notebook gone',
    new ApiError(404, 'notebook_not_found', 'no'),
    /no notebook a\.ipynb/,
    ['save', 'refresh']
  ],
  [
    'bad value',
    new ApiError(400, 'invalid_parameter', 'Not valid: n: is required'),
    /values were refused/,
    []
  ],
  ['no kernel', new ApiError(422, 'no_such_kernel', 'no'), /choose another/, []],
  ['queue full', new ApiError(429, 'queue_full', 'no', {}, 7), /in 7 s/, ['run']],
  ['server short', new ApiError(503, 'out_of_resources', 'no'), /later/, ['run']],
  ['queue full for long', new ApiError(429, 'queue_full', 'no'), /later/, ['run']],
  ['run gone', new ApiError(404, 'run_not_found', 'no'), /forgotten/, ['refresh']],
  ['our fault', new ApiError(500, 'internal_error', 'Internal error 1'), /Internal error 1/, ['refresh']],
  ['anything', new Error('x'), /did not work/, ['refresh']]
])('%s', (_, failure, text, actions) => {
  const message = ofFailure(failure, CONTEXT, trans);
  expect(message.text).toMatch(text);
  expect(message.actions).toEqual(actions);
});

it.each<[string, Partial<IRun>, RegExp, string[]]>([
  [
    'a cell raised',
    failed('cell_error', { ename: 'KeyError', evalue: 'x\ny' }),
    /Cell 4 failed: KeyError/,
    ['go-to-cell', 'run']
  ],
  [
    'a cell failed with a status',
    failed('cell_error', { ename: '', evalue: '1' }),
    /^Cell 4 failed: 1$/,
    ['go-to-cell', 'run']
  ],
  ['a cell failed without a name', failed('cell_error'), /^Cell 4 failed\.$/, ['go-to-cell', 'run']],
  ['input', failed('cell_error', { ename: 'StdinNotImplementedError' }), /asks for input/, ['go-to-cell']],
  [
    'timeout',
    failed('timeout'),
    /^Stopped in cell 4: its time was up\.$/,
    ['go-to-cell', 'run-without-limit', 'settings']
  ],
  [
    'timeout before a cell',
    failed('timeout', { cell: null }),
    /^Stopped: its time was up\.$/,
    ['run-without-limit', 'settings']
  ],
  ['kernel died', failed('kernel_died'), /kernel ended/, ['go-to-cell']],
  ['server stopped', failed('server_stopped', { cell: null }), /server stopped/, []],
  ['kernel did not start', failed('kernel_start_failed', { cell: null }), /the reason/, []],
  ['cancelled', { ...ENDED, status: 'cancelled' }, /cancelled/, []],
  ['left out', { ...ENDED, truncated: true }, /left out/, []]
])('%s', (_, values, text, actions) => {
  const model = new RunModel({ api: new FakeServer().api, run: aRun(values), isTrusted: true });
  const message = ofRun(model, trans)!;
  expect(message.text).toMatch(text);
  expect(message.actions).toEqual(actions);
});

it('says nothing of a run that goes well', () => {
  for (const values of [RUNNING, ENDED]) {
    expect(
      ofRun(new RunModel({ api: new FakeServer().api, run: aRun(values), isTrusted: true }), trans)
    ).toBeNull();
  }
  expect(position(0)).toBe(1);
});

function failed(code: string, values: Partial<IRun['error']> = {}): Partial<IRun> {
  const error = {
    code,
    message: 'the reason',
    ename: null,
    evalue: null,
    traceback: [],
    cell: 3,
    cell_id: 'c',
    ...values
  };
  return { ...ENDED, status: 'failed', error };
}
