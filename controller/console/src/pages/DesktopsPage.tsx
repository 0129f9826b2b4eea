import { Select, Text } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useDeferredValue, useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { useFormat } from '../i18n/useFormat'
import { Answer, Empty } from '../ui/feedback'
import { Page } from '../ui/page'
import { SearchBox } from '../ui/search'
import { matches } from '../ui/text'
import { DesktopTable } from './DesktopTable'

const STATES = [
  'running', 'stopped', 'failed', 'planned', 'creating', 'defined', 'starting', 'booting', 'stopping', 'rebuilding', 'deleting',
]

export function DesktopsPage() {
  const { t } = useTranslation()
  const format = useFormat()
  const [filter, setFilter] = useState('')
  const [state, setState] = useState<string | null>(null)
  const typed = useDeferredValue(filter)
  const query = useQuery({ queryKey: keys.desktops, queryFn: calls.desktops })
  const rows = useMemo(
    () =>
      (query.data?.items ?? []).filter(
        (d) =>
          (!state || d.state === state) &&
          matches(typed, d.name, d.pool.name, d.site.name, d.site.district, d.host?.name, d.assigned_to?.username, ...d.addresses),
      ),
    [query.data, state, typed],
  )
  return (
    <Page
      title={t('nav.desktops')}
      lead={t('desktop.lead')}
      actions={
        <>
          <SearchBox value={filter} onChange={setFilter} placeholder={t('desktop.filter')} />
          <Select
            aria-label={t('common.state')}
            placeholder={t('desktop.anyState')}
            data={STATES.map((value) => ({ value, label: t(`desktop.state.${value}`) }))}
            value={state}
            onChange={setState}
            clearable
            clearButtonProps={{ 'aria-label': t('common.clear') }}
            w={{ base: '100%', xs: 190 }}
          />
        </>
      }
    >
      <Answer query={query} rows={10}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('desktop.none')}>{t('desktop.noneHint')}</Empty>
          ) : (
            <>
              <Text size="sm" className="quiet" role="status">
                {t('common.shownOf', { shown: format.number(rows.length), total: format.number(list.total) })}
              </Text>
              <DesktopTable rows={rows} />
            </>
          )
        }
      </Answer>
    </Page>
  )
}
