import { useMemo } from 'react'
import { useQuery } from '@tanstack/react-query'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Evidence, Incident } from '../api/types'
import { language } from '../i18n'
import { sentence as checkSays } from '../ui/sentence'

/** Every cause there is, in the order in which the rules look. */
export const CAUSES: Incident['cause'][] = [
  'data_centre', 'carrier', 'site_power', 'site_line', 'line_degraded', 'lan', 'switched_off', 'endpoint_power', 'crashed',
  'service', 'site_service', 'desktop', 'peripheral', 'computer', 'flapping',
]

/** Causes, scopes and evidence in the reader's language. */
export function useIncidentText() {
  const { t } = useTranslation()
  const endpoints = useQuery({ queryKey: keys.endpoints, queryFn: calls.endpoints })
  return useMemo(() => {
    const named = new Map(endpoints.data?.items.map((e) => [e.id, e]))
    const check = (name: string) => t(`endpoint.check.${name}`, { defaultValue: name })
    const sentence = (e: Evidence | undefined) => {
      if (!e) return ''
      if (e.code === 'check_says') {
        const code = e.params?.['code'] ?? ''
        return `${check(e.params?.['check'] ?? '')}: ${checkSays(code, e.params ?? {}, language()).what}`
      }
      const phase = t(`incident.phases.${e.params?.['phase'] ?? 'other'}`, { defaultValue: e.params?.['phase'] ?? '' })
      return String(t(`incident.says.${e.code}`, { ...e.params, phase, defaultValue: e.code }))
    }
    const cause = (i: Incident) => {
      const word = t(`incident.causes.${i.cause}`)
      if (!i.detail) return word
      const detail = i.scope.startsWith('endpoint:') ? check(i.detail) : i.detail
      return `${word}: ${detail}`
    }
    const scope = (i: Pick<Incident, 'scope' | 'site'>) => {
      const [kind = '', ...rest] = i.scope.split(':')
      const id = rest.join(':')
      if (i.site) return [i.site.name, i.site.district].filter(Boolean).join(', ')
      const endpoint = named.get(id)
      if (endpoint) return `${endpoint.name}, ${endpoint.site.name}`
      return String(t(`incident.scopes.${kind}`, { id, defaultValue: i.scope }))
    }
    return { sentence, cause, scope, named }
  }, [t, endpoints.data])
}
