/** Text as it is compared in filters: no diacritics, no case, đ = d, NFC = NFD. */
export function fold(text: string): string {
  return text
    .normalize('NFD')
    .replace(/\p{M}/gu, '')
    .replace(/[đĐ]/g, 'd')
    .toLowerCase()
}

/** True when every word of the query is somewhere in the row's texts. */
export function matches(query: string, ...texts: (string | null | undefined)[]): boolean {
  const words = fold(query).split(/\s+/).filter(Boolean)
  if (words.length === 0) return true
  const hay = fold(texts.filter(Boolean).join(' '))
  return words.every((word) => hay.includes(word))
}
