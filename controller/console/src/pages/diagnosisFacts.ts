import { useTranslation } from 'react-i18next'
import type { EndpointHealth } from '../api/types'
import { useFormat } from '../i18n/useFormat'

/** What a number of this name is counted in. */
const UNITS: [RegExp, string, number][] = [
  [/_mbit_s$/, 'Mbit/s', 1],
  [/_kb$/, 'kB', 0],
  [/_ms$/, 'ms', 1],
]

/** A fact of a step in the reader's language; one that has no words yet is shown as it came. */
export function useFactText() {
  const { t } = useTranslation()
  const format = useFormat()
  return (name: string, value: string): string => {
    // Names with a dot or a colon are of one thing among several, such as `sda.smart`.
    if (!/^\w+$/.test(name)) return `${name}: ${value}`
    const label = t(`diagnosis.fact.${name}`, { defaultValue: name })
    const unit = UNITS.find(([ending]) => ending.test(name))
    const number = value.trim() === '' ? Number.NaN : Number(value)
    if (unit && Number.isFinite(number)) return `${label}: ${format.number(number, unit[2])} ${unit[1]}`
    return `${label}: ${t(`diagnosis.value.${name}.${value}`, { defaultValue: value, nsSeparator: false, keySeparator: '.' })}`
  }
}

/** Something at the computer that an argument may name. */
export interface Thing {
  value: string
  name: string
}

const SECTIONS: Record<string, string> = { disk: 'disks', usb_port: 'usb', printer: 'printers' }

/** What the computer reported of the kind an argument is of; it may have something else plugged in by now. */
export function thingsFor(kind: string, health: EndpointHealth | undefined): Thing[] {
  const items = health?.inventory[SECTIONS[kind] ?? ''] ?? []
  return items.filter((i) => kind !== 'printer' || i.kind === 'printer').map((i) => ({ value: i.id, name: i.name ?? '' }))
}
