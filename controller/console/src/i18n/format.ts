import type { Language } from './index'

/** Hanoi's wall clock, whatever the browser's own zone says. */
export const TIME_ZONE = 'Asia/Ho_Chi_Minh'

const NONE = '—'

function parts(at: string | Date, seconds: boolean): Record<string, string> {
  const format = new Intl.DateTimeFormat('en-GB', {
    timeZone: TIME_ZONE,
    day: '2-digit',
    month: '2-digit',
    year: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    second: seconds ? '2-digit' : undefined,
    hourCycle: 'h23',
  })
  return Object.fromEntries(format.formatToParts(new Date(at)).map((p) => [p.type, p.value]))
}

function valid(at: string | Date | null | undefined): at is string | Date {
  return at !== null && at !== undefined && !Number.isNaN(new Date(at).getTime())
}

/** dd/mm/yyyy HH:mm in Hanoi. */
export function dateTime(at: string | Date | null | undefined, seconds = false): string {
  if (!valid(at)) return NONE
  const p = parts(at, seconds)
  const time = seconds ? `${p.hour}:${p.minute}:${p.second}` : `${p.hour}:${p.minute}`
  return `${p.day}/${p.month}/${p.year} ${time}`
}

export function date(at: string | Date | null | undefined): string {
  return valid(at) ? dateTime(at).slice(0, 10) : NONE
}

/** HH:mm in Hanoi. */
export function clock(at: string | Date | null | undefined): string {
  return valid(at) ? dateTime(at).slice(11) : NONE
}

const locale = (language: Language) => (language === 'vi' ? 'vi-VN' : 'en-GB')

/** "3 phút trước"; the unit is the largest that leaves at least one whole. Clocks differ a little, so the near future is now. */
export function relative(at: string | Date | null | undefined, now: Date, language: Language): string {
  if (!valid(at)) return NONE
  const seconds = Math.round((new Date(at).getTime() - now.getTime()) / 1000)
  const format = new Intl.RelativeTimeFormat(locale(language), { numeric: 'always' })
  if (seconds > -2 && seconds < 60) return language === 'vi' ? 'vừa xong' : 'just now'
  const size = Math.abs(seconds)
  if (size < 60) return format.format(seconds, 'second')
  if (size < 3600) return format.format(Math.trunc(seconds / 60), 'minute')
  if (size < 86_400) return format.format(Math.trunc(seconds / 3600), 'hour')
  return format.format(Math.trunc(seconds / 86_400), 'day')
}

export function number(value: number | null | undefined, language: Language, digits = 0): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE
  return new Intl.NumberFormat(locale(language), { maximumFractionDigits: digits }).format(value)
}

/** MiB as the largest binary unit that keeps the figure readable. */
export function mebibytes(mib: number | null | undefined, language: Language): string {
  if (mib === null || mib === undefined) return NONE
  if (mib < 1024) return `${number(mib, language)} MiB`
  if (mib < 1024 * 1024) return `${number(mib / 1024, language, 1)} GiB`
  return `${number(mib / 1024 / 1024, language, 1)} TiB`
}

export function bytes(value: number | null | undefined, language: Language): string {
  return value === null || value === undefined ? NONE : mebibytes(value / 1024 / 1024, language)
}

/** Whole days, hours and minutes of an uptime; the two largest units only. */
export function duration(seconds: number | null | undefined, language: Language): string {
  if (seconds === null || seconds === undefined) return NONE
  const unit = (value: number, name: 'day' | 'hour' | 'minute' | 'second') =>
    new Intl.NumberFormat(locale(language), { style: 'unit', unit: name, unitDisplay: 'long' }).format(value)
  const d = Math.floor(seconds / 86_400)
  const h = Math.floor((seconds % 86_400) / 3600)
  const m = Math.floor((seconds % 3600) / 60)
  const all = [
    { value: d, text: unit(d, 'day') },
    { value: h, text: unit(h, 'hour') },
    { value: m, text: unit(m, 'minute') },
  ].filter((p) => p.value > 0)
  if (all.length === 0) return unit(Math.floor(seconds % 60), 'second')
  return all
    .slice(0, 2)
    .map((p) => p.text)
    .join(' ')
}
