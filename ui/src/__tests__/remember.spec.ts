import { remembered } from '../remember';

it('remembers what was started before the page was loaded again', () => {
  const kept: { [key: string]: string } = {};
  const storage = {
    getItem: (key: string) => kept[key] ?? null,
    setItem: (key: string, text: string) => void (kept[key] = text)
  };
  remembered(storage).add('one');
  remembered(storage).add('two');
  expect([...remembered(storage)]).toEqual(['one', 'two']);
});

it('does without a storage, or with one that holds something else', () => {
  const broken = {
    getItem: () => '{broken',
    setItem: () => {
      throw new Error('full');
    }
  };
  expect(remembered(broken).add('one').has('one')).toBe(true);
  expect(remembered({ ...broken, getItem: () => '{}' }).size).toBe(0);
});
