import { Button, Progress } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useNavigate } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Pool } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Answer, Empty } from '../ui/feedback'
import { Icon } from '../ui/icons'
import { Page } from '../ui/page'
import { SearchBox } from '../ui/search'
import { byText, DataTable, Two } from '../ui/table'
import { matches } from '../ui/text'
import { PoolForm } from './PoolForm'

export function PoolsPage() {
  const { t } = useTranslation()
  const format = useFormat()
  const navigate = useNavigate()
  const [creating, setCreating] = useState(false)
  const [filter, setFilter] = useState('')
  const query = useQuery({ queryKey: keys.pools, queryFn: calls.pools })
  const columns = useMemo<ColumnDef<Pool>[]>(
    () => [
      {
        id: 'name',
        header: t('pool.name'),
        accessorFn: (row) => row.name,
        sortingFn: byText((row) => row.name),
        cell: ({ row }) => (
          <Two
            main={
              <Link className="link" to={`/pools/${row.original.id}`}>
                {row.original.name}
              </Link>
            }
            sub={
              row.original.desired === 'absent'
                ? t('pool.deleting')
                : row.original.problem &&
                  t(`errors.${row.original.problem.code}`, { defaultValue: row.original.problem.text })
            }
          />
        ),
      },
      {
        id: 'site',
        header: t('site.one'),
        accessorFn: (row) => row.site.name,
        sortingFn: byText((row) => row.site.name),
        meta: { from: 'sm' },
        cell: ({ row }) => <Two main={row.original.site.name} sub={row.original.site.district} />,
      },
      {
        id: 'ready',
        header: t('pool.ready'),
        accessorFn: (row) => (row.size ? row.ready / row.size : 1),
        meta: { width: 190, narrow: 120 },
        cell: ({ row: { original: pool } }) => (
          <span>
            {t('pool.readyOf', { ready: format.number(pool.ready), size: format.number(pool.size) })}
            <Progress
              value={pool.size ? (pool.ready / pool.size) * 100 : 100}
              color={pool.failed > 0 ? 'red.8' : undefined}
              size="sm"
              aria-label={t('pool.ready')}
            />
          </span>
        ),
      },
      {
        id: 'failed',
        header: t('desktop.state.failed'),
        accessorFn: (row) => row.failed,
        meta: { width: 90, numeric: true, from: 'md' },
        cell: ({ row }) => format.number(row.original.failed),
      },
      {
        id: 'image',
        header: t('pool.image'),
        accessorFn: (row) => row.image.name,
        meta: { from: 'md' },
        cell: ({ row }) => <Two main={row.original.image.name} sub={row.original.image.version} />,
      },
      {
        id: 'machine',
        header: t('pool.machine'),
        accessorFn: (row) => row.memory_mib,
        meta: { width: 170, from: 'lg' },
        cell: ({ row }) => `${t('pool.cpuCount', { count: row.original.vcpus })} · ${format.mebibytes(row.original.memory_mib)}`,
      },
    ],
    [t, format],
  )
  return (
    <Page
      title={t('nav.pools')}
      lead={t('pool.lead')}
      actions={
        <>
          <SearchBox value={filter} onChange={setFilter} placeholder={t('pool.filter')} />
          <Button leftSection={<Icon name="plus" />} onClick={() => setCreating(true)}>
            {t('pool.create')}
          </Button>
        </>
      }
    >
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('pool.none')}>{t('pool.noneHint')}</Empty>
          ) : (
            <DataTable
              label={t('nav.pools')}
              rows={list.items.filter((pool) => matches(filter, pool.name, pool.site.name, pool.site.district, pool.image.name))}
              columns={columns}
              rowId={(row) => row.id}
              initialSort={[{ id: 'name', desc: false }]}
            />
          )
        }
      </Answer>
      <PoolForm
        opened={creating}
        onClose={() => setCreating(false)}
        onCreated={(pool) => {
          setCreating(false)
          void navigate(`/pools/${pool.id}`)
        }}
      />
    </Page>
  )
}
