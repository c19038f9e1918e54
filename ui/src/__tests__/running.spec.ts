import { RunningRuns } from '../running';
import { aRun, FakeServer, json, RUNNING, trans, until } from './fakes';

it('lists runs that have not ended, and cancels them', async () => {
  const server = new FakeServer()
    .on(/status=running/, json({ runs: [aRun({ ...RUNNING, id: 'one' })], cursor: null }))
    .on(/status=queued/, json({ runs: [aRun({ id: 'two', path: null })], cursor: null }))
    .on(/^POST/, json(aRun()));
  const opened: string[] = [];
  const list = new RunningRuns({ api: server.api, open: path => opened.push(path), trans });
  await until(() => list.running().length === 2);
  expect(server.asked.every(({ url }) => url.includes('no_track_activity=1'))).toBe(true);
  const [one, two] = list.running();
  expect([one.label(), one.detail!(), one.labelTitle!()]).toEqual(['a b.ipynb', '0/2', 'one']);
  expect(two.detail!()).toBe('queued');
  expect(two.open).toBeUndefined();
  one.open!();
  expect(opened).toEqual(['a b.ipynb']);
  one.shutdown!();
  list.shutdownAll();
  await until(() => server.asked.filter(({ method }) => method === 'POST').length === 3);
  let changes = 0;
  list.runningChanged.connect(() => (changes += 1));
  server.on(/^GET/, json({ runs: [], cursor: null }));
  list.refreshRunning();
  await until(() => list.running().length === 0);
  expect(changes).toBe(1);
  list.dispose();
});
