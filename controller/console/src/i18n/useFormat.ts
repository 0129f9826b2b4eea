import { useMemo } from 'react'
import { useTranslation } from 'react-i18next'
import * as format from './format'
import { language } from './index'

/** The formatters bound to the language on screen. */
export function useFormat() {
  const { i18n } = useTranslation()
  return useMemo(() => {
    void i18n.language
    const lang = language()
    return {
      language: lang,
      dateTime: format.dateTime,
      date: format.date,
      clock: format.clock,
      relative: (at: string | null | undefined, now: Date) => format.relative(at, now, lang),
      number: (value: number | null | undefined, digits = 0) => format.number(value, lang, digits),
      mebibytes: (mib: number | null | undefined) => format.mebibytes(mib, lang),
      bytes: (value: number | null | undefined) => format.bytes(value, lang),
      duration: (seconds: number | null | undefined) => format.duration(seconds, lang),
    }
  }, [i18n.language])
}
