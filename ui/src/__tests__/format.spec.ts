import * as format from '../format';
import { trans } from './fakes';

it.each([
  [0.041, '0.04 s'],
  [12.34, '12.3 s'],
  [59.97, '1 min 00 s'],
  [245, '4 min 05 s'],
  [7500, '2 h 05 min']
])('writes %d seconds as %s', (seconds, text) => {
  expect(format.duration(seconds)).toBe(text);
});

it.each([
  [812, '812 B'],
  [12_300, '12 kB'],
  [999_700, '1.0 MB'],
  [3_400_000, '3.4 MB']
])('writes %d bytes as %s', (bytes, text) => {
  expect(format.size(bytes)).toBe(text);
});

it('calls the last days by name', () => {
  const now = new Date(2026, 10, 20, 12);
  const at = (day: number) => new Date(2026, 10, day, 8).toISOString();
  expect(format.day(at(20), trans, now)).toBe('Today');
  expect(format.day(at(19), trans, now)).toBe('Yesterday');
  expect(format.day(at(1), trans, now)).toContain('2026');
  expect(format.time(at(1))).toMatch(/^\d\d:\d\d$/);
  expect(format.exactTime(at(1))).toMatch(/^\d\d:\d\d:\d\d$/);
});

it('writes values in a line', () => {
  expect(format.values({ region: 'EU', top: 5, list: [1, 2n] })).toBe('region=EU top=5 list=[1,2]');
  expect(format.values({ long: 'x'.repeat(100) }, 10)).toBe('long=xxxx…');
});
