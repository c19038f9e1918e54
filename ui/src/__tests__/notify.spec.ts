import { Notification } from '@jupyterlab/apputils';
import { PanelModel } from '../model';
import { Notifier } from '../notify';
import { DEFAULT_SETTINGS } from '../tokens';
import { own } from './cleanup';
import { aDescription, aRun, ENDED, events, FakeServer, json, trans, until } from './fakes';

async function played(
  end: object,
  options: { isShown?: boolean; notify?: 'hidden' | 'always' | 'never' } = {}
) {
  let release: () => void = () => undefined;
  const released = new Promise<void>(resolve => (release = resolve));
  const server = new FakeServer()
    .on(/^GET \/runs\?/, json({ runs: [], cursor: null }))
    .on(/^GET \/a/, json(aDescription()))
    .on(/^HEAD/, new Response())
    .on(/^POST/, json(aRun(), 202))
    .on(/events$/, async () => {
      await released;
      return events({ type: 'end', data: aRun(end) } as any);
    });
  const model = own(new PanelModel({ api: server.api }));
  model.settings = { ...DEFAULT_SETTINGS, notify: options.notify ?? 'hidden' };
  let isShown = options.isShown ?? false;
  const shown: string[] = [];
  const notifier = new Notifier({
    model,
    isShown: () => isShown,
    show: service => shown.push(service.path),
    trans
  });
  model.show('a.ipynb', null);
  await model.current!.start();
  const see = (value: boolean) => {
    isShown = value;
    notifier.check();
  };
  return { model, release, shown, see, server };
}

const told = () => Notification.manager.notifications;

beforeEach(() => Notification.dismiss());

it('tells of a run that is out of sight, and how it has ended', async () => {
  const { model, release, shown, server } = await played(ENDED);
  expect(told()[0].message).toBe('Running a.ipynb: 0 of 2 cells');
  expect(told()[0].type).toBe('in-progress');
  told()[0].options.actions![0].callback(new MouseEvent('click'));
  expect(shown).toEqual(['a.ipynb']);
  told()[0].options.actions![1].callback(new MouseEvent('click'));
  await until(() => server.asked.some(({ url }) => url.endsWith('/cancel')));
  release();
  await until(() => model.current!.run!.hasEnded);
  expect(told()[0].message).toBe('a.ipynb has run.');
  expect(told()[0].type).toBe('success');
});

it('says why a run has failed', async () => {
  const error = {
    code: 'cell_error',
    ename: 'E',
    evalue: '',
    message: '',
    traceback: [],
    cell: 0,
    cell_id: 'c'
  };
  const { model, release } = await played({ ...ENDED, status: 'failed', error });
  release();
  await until(() => model.current!.run!.hasEnded);
  expect(told()[0].message).toBe('a.ipynb: Cell 1 failed: E');
  expect(told()[0].type).toBe('error');
});

it('tells nothing of what can be seen, or to whom does not want it', async () => {
  const { see } = await played(ENDED, { isShown: true });
  expect(told()).toHaveLength(0);
  see(false);
  expect(told()).toHaveLength(1);
  see(true);
  expect(told()).toHaveLength(0);
  await played(ENDED, { notify: 'never' });
  expect(told()).toHaveLength(0);
  await played(ENDED, { notify: 'always', isShown: true });
  expect(told()).toHaveLength(1);
});
