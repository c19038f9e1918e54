import type { TranslationBundle } from '@jupyterlab/translation';
import { stringify } from './json';
import type { Values } from './tokens';

/** `0.04 s`, `12.3 s`, `4 min 05 s`, `2 h 05 min`. */
export function duration(seconds: number): string {
  if (seconds < 10) {
    return `${seconds.toFixed(2)} s`;
  }
  if (seconds < 59.95) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  const pad = (value: number) => String(value).padStart(2, '0');
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  }
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/** `812 B`, `12 kB`, `3.4 MB`. */
export function size(bytes: number): string {
  if (bytes < 1000) {
    return `${bytes} B`;
  }
  const kilo = bytes / 1000;
  return kilo < 999.5 ? `${Math.round(kilo)} kB` : `${(kilo / 1000).toFixed(1)} MB`;
}

/** The time of day: `14:02`. */
export function time(iso: string): string {
  return new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
}

/** The time of day with its seconds: `14:02:11`. */
export function exactTime(iso: string): string {
  return new Date(iso).toLocaleTimeString([], {
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hourCycle: 'h23'
  });
}

/** `Today`, `Yesterday`, or the date. */
export function day(iso: string, trans: TranslationBundle, now: Date = new Date()): string {
  const date = new Date(iso);
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate());
  if (date >= midnight) {
    return trans.__('Today');
  }
  midnight.setDate(midnight.getDate() - 1);
  if (date >= midnight) {
    return trans.__('Yesterday');
  }
  return date.toLocaleDateString([], { year: 'numeric', month: 'long', day: 'numeric' });
}

/** `region=EU top=5`; cut off where it is long. */
export function values(given: Values, limit = 80): string {
  const text = Object.entries(given)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : stringify(value)}`)
    .join(' ');
  return text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
}
