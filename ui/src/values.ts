import { equal, parse, stringify } from './json';
import type { IDescription, ISchema, Json, Values } from './tokens';

/** The values that the notebook itself has; those that are no literals are left out. */
export function defaults(description: IDescription): Values {
  const literal = description.parameters.filter(
    parameter => !parameter.required && parameter.default_source === undefined
  );
  return Object.fromEntries(literal.map(parameter => [parameter.name, parameter.default]));
}

/** What differs from the notebook's own values. */
export function changed(values: Values, own: Values): Values {
  return Object.fromEntries(
    Object.entries(values).filter(
      ([name, value]) => value !== undefined && !(name in own && equal(value, own[name]))
    )
  );
}

/** The values that a notebook takes which are among the given ones. */
export function fitting(values: Values, schema: ISchema): Values {
  if (takesAny(schema)) {
    return values;
  }
  return Object.fromEntries(Object.entries(values).filter(([name]) => name in (schema.properties ?? {})));
}

/** Whether a notebook declares nothing, and takes whatever it is given. */
export function takesAny(schema: ISchema): boolean {
  return schema.additionalProperties !== false;
}

/** How a parameter is edited. */
export type Editor = 'number' | 'text' | 'date' | 'check' | 'choice' | 'list' | 'json';

/** Which types a schema allows; empty for any. */
export function types(schema: ISchema): string[] {
  if (schema.type !== undefined) {
    return Array.isArray(schema.type) ? schema.type : [schema.type];
  }
  if (schema.anyOf) {
    const each = schema.anyOf.map(types);
    return each.some(found => !found.length) ? [] : [...new Set(each.flat())];
  }
  return [];
}

/** Choose the editor for a schema; what none is made for is edited as JSON. */
export function editor(schema: ISchema): Editor {
  if (choices(schema)) {
    return 'choice';
  }
  const found = types(schema).filter(type => type !== 'null');
  if (found.length !== 1) {
    return 'json';
  }
  switch (found[0]) {
    case 'integer':
    case 'number':
      return 'number';
    case 'string':
      return schema.format === 'date' ? 'date' : 'text';
    case 'boolean':
      return isNullable(schema) ? 'choice' : 'check';
    case 'array':
      return !isNullable(schema) && schema.items && isSimple(schema.items) ? 'list' : 'json';
    default:
      return 'json';
  }
}

/** The values that there are, where they are listed; with null where that is allowed too. */
export function choices(schema: ISchema): Json[] | null {
  if (schema.enum) {
    return schema.enum;
  }
  const found = types(schema);
  if (found.length === 2 && found.includes('boolean') && found.includes('null')) {
    return [true, false, null];
  }
  if (schema.anyOf?.length) {
    const each = schema.anyOf.map(choice => (types(choice).join() === 'null' ? [null] : choices(choice)));
    if (each.every((listed): listed is Json[] => listed !== null)) {
      return each.flat().filter((value, index, all) => all.findIndex(v => equal(v, value)) === index);
    }
  }
  return null;
}

export function isNullable(schema: ISchema): boolean {
  return types(schema).includes('null');
}

/** Whether a text is what an input for dates can show. */
export function isDate(text: string): boolean {
  const time = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(text) : NaN;
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(text);
}

/** Read what was typed as a number; text that is none stays text, for the server to refuse. */
export function readNumber(text: string): Json | undefined {
  const trimmed = text.trim();
  if (!trimmed) {
    return undefined;
  }
  if (/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(trimmed)) {
    const number = parse(trimmed);
    return typeof number === 'number' && !Number.isFinite(number) ? trimmed : number;
  }
  return trimmed;
}

/** Read what was typed where anything is allowed: JSON where it is that, else the text, as the command line does. */
export function readAny(text: string): Json | undefined {
  if (!text.trim()) {
    return undefined;
  }
  try {
    return parse(text);
  } catch {
    return text;
  }
}

/** Write a value so that `readAny` gives it back. */
export function writeAny(value: Json | undefined): string {
  if (value === undefined) {
    return '';
  }
  if (typeof value !== 'string') {
    return stringify(value);
  }
  const read = readAny(value);
  return read === value ? value : stringify(value);
}

/** Describe what is to be typed: `integer or null`. */
export function typeWords(schema: ISchema): string {
  return types(schema)
    .map(type => (type === 'array' && schema.items ? `array of ${typeWords(schema.items) || 'any'}` : type))
    .join(' or ');
}

/** Bounds in words: `1 … 10`. */
export function boundWords(schema: ISchema): string {
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  if (low !== undefined && high !== undefined) {
    return `${low} … ${high}`;
  }
  if (low !== undefined) {
    return schema.minimum !== undefined ? `≥ ${low}` : `> ${low}`;
  }
  return high === undefined ? '' : schema.maximum !== undefined ? `≤ ${high}` : `< ${high}`;
}

function isSimple(schema: ISchema): boolean {
  return ['number', 'text', 'check', 'choice', 'date'].includes(editor(schema)) && !isNullable(schema);
}
