import * as values from '../values';
import { aDescription } from './fakes';

describe('values', () => {
  it('takes literals for the values of the notebook', () => {
    const description = aDescription({
      parameters: [
        { name: 'a', type: 'integer', default: 1, required: false, description: '' },
        { name: 'b', type: 'any', default: null, default_source: 'now()', required: false, description: '' },
        { name: 'c', type: 'string', default: null, required: true, description: '' }
      ]
    });
    expect(values.defaults(description)).toEqual({ a: 1 });
  });

  it('finds what is changed', () => {
    expect(values.changed({ a: 1, b: [2], c: undefined as any, d: 4 }, { a: 1, b: [3], c: 1 })).toEqual({
      b: [2],
      d: 4
    });
  });

  it('leaves out what a notebook does not take, if it says what it takes', () => {
    const given = { a: 1, b: 2 };
    expect(values.fitting(given, { properties: { a: {} }, additionalProperties: false })).toEqual({ a: 1 });
    expect(values.fitting(given, { properties: {}, additionalProperties: true })).toEqual(given);
  });

  it.each([
    [{ type: 'integer' }, 'number'],
    [{ type: ['integer', 'null'] }, 'number'],
    [{ type: 'string' }, 'text'],
    [{ type: 'string', format: 'date' }, 'date'],
    [{ type: 'boolean' }, 'check'],
    [{ type: ['boolean', 'null'] }, 'choice'],
    [{ type: 'string', enum: ['a'] }, 'choice'],
    [{ anyOf: [{ type: 'string', enum: ['a'] }, { type: 'null' }] }, 'choice'],
    [{ anyOf: [{ type: 'integer' }, { type: 'null' }] }, 'number'],
    [{ type: 'array', items: { type: 'string' } }, 'list'],
    [{ type: 'array', items: { type: 'array' } }, 'json'],
    [{ type: 'array' }, 'json'],
    [{ type: 'object' }, 'json'],
    [{ type: ['integer', 'string'] }, 'json'],
    [{ anyOf: [{}, { type: 'null' }] }, 'json'],
    [{}, 'json']
  ])('edits %j by %s', (schema, editor) => {
    expect(values.editor(schema)).toBe(editor);
  });

  it('lists choices, with null where it is one', () => {
    const schema = { anyOf: [{ anyOf: [{ enum: ['x', 'y'] }, { type: 'null' }] }, { type: 'null' }] };
    expect(values.choices(schema)).toEqual(['x', 'y', null]);
  });

  it.each([
    ['12', 12],
    [' -1.5e3 ', -1500],
    ['12345678901234567890', 12345678901234567890n],
    ['1e999', '1e999'],
    ['long', 'long'],
    ['', undefined]
  ])('reads the number %j', (text, number) => {
    expect(values.readNumber(text)).toBe(number);
  });

  it.each([
    ['2026-01-02', true],
    ['2026-02-30', false],
    ['tomorrow', false],
    ['', false]
  ])('knows the date %j', (text, isDate) => {
    expect(values.isDate(text)).toBe(isDate);
  });

  it.each(['EU', '12', 'null', '{"a": [1, 2]}', '"quoted"', ' space ', '{broken'])('reads back %j', text => {
    expect(values.readAny(values.writeAny(text))).toBe(text);
    expect(values.readAny(values.writeAny({ a: text }))).toEqual({ a: text });
  });

  it('describes what is to be typed', () => {
    expect(values.typeWords({ type: ['array', 'null'], items: { type: 'string' } })).toBe(
      'array of string or null'
    );
    expect(values.boundWords({ minimum: 1, maximum: 10 })).toBe('1 … 10');
    expect(values.boundWords({ exclusiveMinimum: 1 })).toBe('> 1');
    expect(values.boundWords({ maximum: 3 })).toBe('≤ 3');
    expect(values.boundWords({})).toBe('');
  });
});
