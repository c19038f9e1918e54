import React from 'react';

/** Milliseconds for which it is said that something was copied. */
const COPIED = 3000;

/** Whether this was copied just now, and how to say so; what is copied next (by its key) was not yet. */
export function useCopied(key: string = ''): [boolean, () => void] {
  const [copied, setCopied] = React.useState<string | null>(null);
  React.useEffect(() => {
    if (copied === null) {
      return;
    }
    const timer = setTimeout(() => setCopied(null), COPIED);
    return () => clearTimeout(timer);
  }, [copied]);
  return [copied === key, () => setCopied(key)];
}
