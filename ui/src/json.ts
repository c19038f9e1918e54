import type { Json } from './tokens';

// A number of JSON may have any size, one of JavaScript not: an integer that would be changed becomes a `bigint`.

/** No text holds this by chance, nor can one be made to. */
const MARK = `\u0000${Math.random().toString(36).slice(2)}:`;
const MARKED = new RegExp(`"\\\\u0000${MARK.slice(1)}(-?\\d+)"`, 'g');
const MAYBE_LARGE = /[:[,\s]-?\d{16}|^-?\d{16}/;
const INTEGER = /(^|[:[,\s])(-?\d{16,})(?=[,\]}\s]|$)/g;

/** Read JSON; integers that a number cannot hold become `bigint`. Raises SyntaxError. */
export function parse(text: string): Json {
  if (!MAYBE_LARGE.test(text)) {
    return JSON.parse(text);
  }
  return JSON.parse(mark(text), (_, value) =>
    typeof value === 'string' && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value
  );
}

/** Write JSON. */
export function stringify(value: Json, indent?: number): string {
  let isMarked = false;
  const text = JSON.stringify(
    value,
    (_, entry) => {
      if (typeof entry !== 'bigint') {
        return entry;
      }
      isMarked = true;
      return MARK + entry;
    },
    indent
  );
  return isMarked ? text.replace(MARKED, '$1') : text;
}

/** Write large integers as strings that can be told from others. */
function mark(text: string): string {
  const pieces: string[] = [];
  let start = 0;
  while (start < text.length) {
    const quote = text.indexOf('"', start);
    const end = quote < 0 ? text.length : quote;
    pieces.push(
      text
        .slice(start, end)
        .replace(INTEGER, (token, before: string, integer: string) =>
          Number.isSafeInteger(Number(integer)) ? token : before + JSON.stringify(MARK + integer)
        )
    );
    start = quote < 0 ? text.length : endOfString(text, quote);
    pieces.push(text.slice(end, start));
  }
  return pieces.join('');
}

function endOfString(text: string, quote: number): number {
  let end = quote;
  do {
    end = text.indexOf('"', end + 1);
  } while (end >= 0 && isEscaped(text, end));
  return end < 0 ? text.length : end + 1;
}

function isEscaped(text: string, index: number): boolean {
  let start = index;
  while (text[start - 1] === '\\') {
    start -= 1;
  }
  return (index - start) % 2 === 1;
}

/** Whether a value holds an integer that a number cannot. */
export function hasLarge(value: Json): boolean {
  if (typeof value !== 'object' || value === null) {
    return typeof value === 'bigint';
  }
  return Object.values(value).some(hasLarge);
}

/** Whether two values are the same JSON, whatever the order of names. */
export function equal(one: Json | undefined, other: Json | undefined): boolean {
  if (one === other) {
    return true;
  }
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null) {
    return false;
  }
  if (Array.isArray(one) || Array.isArray(other)) {
    return (
      Array.isArray(one) &&
      Array.isArray(other) &&
      one.length === other.length &&
      one.every((entry, index) => equal(entry, other[index]))
    );
  }
  const names = Object.keys(one);
  return (
    names.length === Object.keys(other).length &&
    names.every(name => name in other && equal(one[name], other[name]))
  );
}
