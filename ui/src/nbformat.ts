import type { IOutput } from '@jupyterlab/nbformat';
import { hasLarge, stringify } from './json';
import type { ICellOutput, IRunError, Json } from './tokens';

/** Add an output as the notebook format has it: text that goes on is joined. */
export function append(outputs: IOutput[], output: IOutput): void {
  const last = outputs[outputs.length - 1];
  if (last?.output_type === 'stream' && output.output_type === 'stream' && last.name === output.name) {
    outputs[outputs.length - 1] = { ...last, text: textOf(last.text) + textOf(output.text) } as IOutput;
    return;
  }
  outputs.push(output);
}

/** The text of a string of several lines, however it is kept. */
export function textOf(text: unknown): string {
  return Array.isArray(text) ? text.join('') : String(text ?? '');
}

/** An output without what the service adds to it. */
export function bare(output: ICellOutput): IOutput {
  const { cell: _cell, cell_id: _id, display_id: _display, ...rest } = output;
  return rest as IOutput;
}

/** An error as the output that it would have been. */
export function asOutput(error: IRunError): ICellOutput {
  const { cell, cell_id, traceback } = error;
  const [ename, evalue] = [error.ename ?? error.code, error.evalue ?? error.message];
  return { output_type: 'error', ename, evalue, traceback, cell, cell_id } as ICellOutput;
}

/** About how many characters an output has. */
export function sizeOf(output: IOutput): number {
  const bundle = (output.data ?? {}) as { [type: string]: unknown };
  const parts = [output.text, output.traceback, ...Object.values(bundle)];
  return parts.reduce<number>((size, part) => {
    if (part === undefined) {
      return size;
    }
    return size + (typeof part === 'string' ? part.length : JSON.stringify(part, stringified).length);
  }, 0);
}

function stringified(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `${value}` : value;
}

/** What renderers can draw: they know no `bigint`. JSON that holds one is text, which has all of its digits. */
export function printable(output: IOutput): IOutput {
  const { 'application/json': tree, ...others } = (output.data ?? {}) as { [type: string]: Json };
  const metadata = (output.metadata ?? {}) as { [name: string]: Json };
  if (!hasLarge([tree ?? null, others, metadata])) {
    return output;
  }
  const json: { [type: string]: Json } = {};
  if (tree !== undefined) {
    json[hasLarge(tree) ? 'text/plain' : 'application/json'] = hasLarge(tree) ? stringify(tree, 2) : tree;
  }
  return { ...output, data: { ...rounded(others), ...json }, metadata: rounded(metadata) } as IOutput;
}

/** A plot needs numbers, and not all of their digits. */
function rounded(value: { [name: string]: Json }): { [name: string]: Json } {
  return JSON.parse(JSON.stringify(value, (_, entry) => (typeof entry === 'bigint' ? Number(entry) : entry)));
}
