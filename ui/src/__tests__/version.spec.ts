import { readFileSync } from 'node:fs';
import { VERSION } from '../version';

it('is that of both packages', () => {
  expect(JSON.parse(readFileSync('package.json', 'utf8')).version).toBe(VERSION);
  expect(readFileSync('../jupyter_nbexec/_version.py', 'utf8')).toContain(`"${VERSION}"`);
});
