import { ActionIcon, Menu, VisuallyHidden } from '@mantine/core'
import { useQueryClient } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { useMe } from '../app/session'
import type { Desktop } from '../api/types'
import { Confirm } from '../ui/confirm'
import { problemText } from '../ui/errors'
import { Icon } from '../ui/icons'
import { done, refused } from '../ui/notify'
import { byText, DataTable, Two } from '../ui/table'
import { Ago } from '../ui/time'
import { DesktopModal, StateDetail } from './DesktopModal'

const ASKS: ReadonlySet<calls.DesktopVerb> = new Set(['stop', 'force_stop', 'reset', 'rebuild'])

/** Desktops with their live state and, for operators, what can be done to each. */
export function DesktopTable({ rows, inPool, height }: { rows: Desktop[]; inPool?: boolean; height?: string }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const operator = useMe().user.role === 'operator'
  const [asking, setAsking] = useState<{ desktop: Desktop; verb: calls.DesktopVerb }>()
  const [shown, setShown] = useState<string>()

  const columns = useMemo<ColumnDef<Desktop>[]>(() => {
    const act = async (desktop: Desktop, verb: calls.DesktopVerb) => {
      if (ASKS.has(verb)) {
        setAsking({ desktop, verb })
        return
      }
      try {
        await calls.actOnDesktop(desktop.id, verb)
        done(t(`desktop.asked.${verb}`, { name: desktop.name }))
        await client.invalidateQueries({ queryKey: keys.desktops })
      } catch (error) {
        refused(problemText(t, error))
      }
    }
    const all: ColumnDef<Desktop>[] = [
      {
        id: 'name',
        header: t('desktop.name'),
        accessorFn: (row) => row.name,
        sortingFn: byText((row) => row.name),
        cell: ({ row }) => (
          <Two
            main={
              <button type="button" className="link" style={{ all: 'unset', cursor: 'pointer' }} onClick={() => setShown(row.original.id)}>
                <span className="link">{row.original.name}</span>
              </button>
            }
            sub={row.original.assigned_to?.username}
          />
        ),
      },
      {
        id: 'state',
        header: t('common.state'),
        accessorFn: (row) => row.state,
        meta: { width: 250, narrow: 150 },
        cell: ({ row }) => <StateDetail desktop={row.original} />,
      },
      {
        id: 'pool',
        header: t('pool.one'),
        accessorFn: (row) => row.pool.name,
        sortingFn: byText((row) => row.pool.name),
        meta: { from: 'md' },
        cell: ({ row }) =>
          operator ? (
            <Link className="link" to={`/pools/${row.original.pool.id}`}>
              {row.original.pool.name}
            </Link>
          ) : (
            row.original.pool.name
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
        id: 'host',
        header: t('host.one'),
        accessorFn: (row) => row.host?.name ?? '',
        sortingFn: byText((row) => row.host?.name),
        meta: { from: 'lg', width: 130 },
        cell: ({ row }) => row.original.host?.name ?? '—',
      },
      {
        id: 'updated',
        header: t('desktop.updated'),
        accessorFn: (row) => row.updated_at,
        meta: { from: 'lg', width: 130 },
        cell: ({ row }) => <Ago at={row.original.updated_at} />,
      },
      {
        id: 'actions',
        header: () => <VisuallyHidden>{t('common.actions')}</VisuallyHidden>,
        enableSorting: false,
        meta: { width: 60, narrow: 52 },
        cell: ({ row }) => <RowMenu desktop={row.original} act={(verb) => void act(row.original, verb)} />,
      },
    ]
    return all.filter((c) => !(inPool && (c.id === 'pool' || c.id === 'site')) && !(c.id === 'actions' && !operator))
  }, [t, client, operator, inPool])

  return (
    <>
      <DataTable
        label={t('nav.desktops')}
        rows={rows}
        columns={columns}
        rowId={(row) => row.id}
        initialSort={[{ id: 'name', desc: false }]}
        height={height}
      />
      {asking && (
        <Confirm
          opened
          danger
          title={t(`desktop.verb.${asking.verb}`)}
          action={t(`desktop.verb.${asking.verb}`)}
          typed={asking.verb === 'rebuild' ? asking.desktop.name : undefined}
          onClose={() => setAsking(undefined)}
          onConfirm={async () => {
            await calls.actOnDesktop(asking.desktop.id, asking.verb)
            done(t(`desktop.asked.${asking.verb}`, { name: asking.desktop.name }))
            await client.invalidateQueries({ queryKey: keys.desktops })
          }}
        >
          {t(`desktop.ask.${asking.verb}`, { name: asking.desktop.name })}
        </Confirm>
      )}
      {shown && <DesktopModal desktop={rows.find((row) => row.id === shown)} onClose={() => setShown(undefined)} />}
    </>
  )
}

function RowMenu({ desktop, act }: { desktop: Desktop; act: (verb: calls.DesktopVerb) => void }) {
  const { t } = useTranslation()
  const off = desktop.state === 'stopped'
  const going = desktop.state === 'deleting'
  return (
    <Menu position="bottom-end" width={220} disabled={going}>
      <Menu.Target>
        <ActionIcon
          variant="subtle"
          color="gray"
          c="var(--mantine-color-text)"
          aria-label={t('desktop.actionsOf', { name: desktop.name })}
          disabled={going}
        >
          <Icon name="more" />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item onClick={() => act('start')} disabled={desktop.desired === 'running' && desktop.state !== 'failed'}>
          {t('desktop.verb.start')}
        </Menu.Item>
        <Menu.Item onClick={() => act('stop')} disabled={off}>
          {t('desktop.verb.stop')}
        </Menu.Item>
        <Menu.Item onClick={() => act('force_stop')} disabled={off}>
          {t('desktop.verb.force_stop')}
        </Menu.Item>
        <Menu.Item onClick={() => act('reset')} disabled={off}>
          {t('desktop.verb.reset')}
        </Menu.Item>
        <Menu.Divider />
        <Menu.Item onClick={() => act('rebuild')} c="light-dark(#9c1c1c, #ffa8a8)">
          {t('desktop.verb.rebuild')}
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  )
}

