import { useQuery } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Image } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Answer, Empty } from '../ui/feedback'
import { Page } from '../ui/page'
import { StatePill } from '../ui/state'
import { byText, DataTable, Two } from '../ui/table'
import { Exact } from '../ui/time'

export function ImagesPage() {
  const { t } = useTranslation()
  const format = useFormat()
  const query = useQuery({ queryKey: keys.images, queryFn: calls.images })
  const columns = useMemo<ColumnDef<Image>[]>(
    () => [
      {
        id: 'name',
        header: t('image.name'),
        accessorFn: (row) => row.name,
        sortingFn: byText((row) => row.name),
        cell: ({ row }) => <Two main={row.original.name} sub={row.original.version} />,
      },
      {
        id: 'state',
        header: t('common.state'),
        accessorFn: (row) => row.state,
        meta: { width: 120 },
        cell: ({ row }) => (
          <span title={row.original.error ?? undefined}>
            <StatePill group="image.state" state={row.original.state} />
          </span>
        ),
      },
      {
        id: 'size',
        header: t('image.virtualSize'),
        accessorFn: (row) => row.virtual_size_bytes ?? 0,
        meta: { width: 115, numeric: true, from: 'sm' },
        cell: ({ row }) => format.bytes(row.original.virtual_size_bytes),
      },
      {
        id: 'file',
        header: t('image.fileSize'),
        accessorFn: (row) => row.file_size_bytes ?? 0,
        meta: { width: 110, numeric: true, from: 'md' },
        cell: ({ row }) => format.bytes(row.original.file_size_bytes),
      },
      {
        id: 'guest',
        header: t('image.guest'),
        accessorFn: (row) => row.guest,
        meta: { width: 125, from: 'lg' },
        cell: ({ row }) => t(`image.guests.${row.original.guest}`),
      },
      {
        id: 'pools',
        header: t('nav.pools'),
        accessorFn: (row) => row.pools,
        meta: { width: 110, numeric: true, from: 'sm' },
        cell: ({ row }) => format.number(row.original.pools),
      },
      {
        id: 'sha',
        header: 'SHA-256',
        enableSorting: false,
        meta: { width: 135, from: 'lg' },
        cell: ({ row }) => <code title={row.original.sha256 ?? undefined}>{row.original.sha256?.slice(0, 12) ?? '—'}</code>,
      },
      {
        id: 'created',
        header: t('common.created'),
        accessorFn: (row) => row.created_at,
        meta: { width: 160, from: 'md' },
        cell: ({ row }) => <Exact at={row.original.created_at} />,
      },
    ],
    [t, format],
  )
  return (
    <Page title={t('nav.images')} lead={t('image.lead')}>
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('image.none')}>{t('image.noneHint')}</Empty>
          ) : (
            <>
              <DataTable label={t('nav.images')} rows={list.items} columns={columns} rowId={(row) => row.id} />
              {list.items
                .filter((image) => image.error)
                .map((image) => (
                  <p key={image.id} role="note">
                    <b>
                      {image.name} {image.version}:
                    </b>{' '}
                    {image.error}
                  </p>
                ))}
            </>
          )
        }
      </Answer>
    </Page>
  )
}
