/**
 * What stands in a field for a number: nothing, or a number. Of one too long for it, and of half a one, a field gives
 * its text, which must not be taken for an empty field.
 */
export function typed(value: number | string): number | undefined {
  const text = String(value).replace(/\s/g, '')
  return text === '' ? undefined : Number(text)
}
