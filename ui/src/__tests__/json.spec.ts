import { equal, hasLarge, parse, stringify } from '../json';

describe('json', () => {
  it.each([
    '12345678901234567890',
    '[-12345678901234567890,1]',
    '{"a":{"b":12345678901234567890}}',
    '[12345678901234567890,98765432109876543210]'
  ])('keeps the large integers of %s', text => {
    expect(stringify(parse(text))).toBe(text);
  });

  it.each([
    '{"a":"x: 12345678901234567890, \\" 12345678901234567890"}',
    '[1,2.5,-3e10,true,null,"é\\n\\\\"]'
  ])('leaves all else of %s as it is', text => {
    expect(parse(text)).toEqual(JSON.parse(text));
  });

  it('keeps text beside a large integer', () => {
    const text = '{"s":"12345678901234567890 \\\\","n":12345678901234567890,"t":"\\\\\\""}';
    expect(parse(text)).toEqual({ s: '12345678901234567890 \\', n: 12345678901234567890n, t: '\\"' });
  });

  it('refuses what is no JSON', () => {
    expect(() => parse('{a: 1}')).toThrow(SyntaxError);
  });

  it('finds large integers', () => {
    expect(hasLarge({ a: [1, { b: 2n }] })).toBe(true);
    expect(hasLarge([1, '2', null, { a: true }])).toBe(false);
  });

  it('takes values for equal whatever the order of names', () => {
    expect(equal({ a: [1, { b: 2n }], c: null }, { c: null, a: [1, { b: 2n }] })).toBe(true);
    expect(equal([1], [1, 2])).toBe(false);
    expect(equal({ a: 1 }, { b: 1 })).toBe(false);
    expect(equal([], {})).toBe(false);
    expect(equal(null, {})).toBe(false);
  });
});
