import {
  type ColumnDef,
  flexRender,
  getCoreRowModel,
  getSortedRowModel,
  type RowData,
  type SortingState,
  useReactTable,
} from '@tanstack/react-table'
import { useVirtualizer } from '@tanstack/react-virtual'
import { useMediaQuery } from '@mantine/hooks'
import { useMemo, useRef, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Icon } from './icons'

declare module '@tanstack/react-table' {
  interface ColumnMeta<TData extends RowData, TValue> {
    /** Width in px; columns without one share what is left. */
    width?: number
    /** Width in a narrow window. */
    narrow?: number
    /** The narrowest window that still shows this column. */
    from?: 'sm' | 'md' | 'lg'
    numeric?: boolean
  }
}

const ROW = 44
const collator = new Intl.Collator('vi', { numeric: true, sensitivity: 'base' })

/** Vietnamese collation with numbers in order: "vdi-2" before "vdi-10". */
export function byText<T>(pick: (row: T) => string | null | undefined) {
  return (a: { original: T }, b: { original: T }) => collator.compare(pick(a.original) ?? '', pick(b.original) ?? '')
}

interface Props<T> {
  label: string
  rows: T[]
  columns: ColumnDef<T>[]
  rowId: (row: T) => string
  initialSort?: SortingState
  /** CSS height limit of the scroll region. */
  height?: string
}

/** A table that draws only the rows in sight; 5,000 rows scroll like 50. */
export function DataTable<T>({ label, rows, columns, rowId, initialSort = [], height }: Props<T>) {
  const { t } = useTranslation()
  const [sorting, setSorting] = useState<SortingState>(initialSort)
  const sm = useMediaQuery('(min-width: 640px)', true, { getInitialValueInEffect: false })
  const md = useMediaQuery('(min-width: 960px)', true, { getInitialValueInEffect: false })
  const lg = useMediaQuery('(min-width: 1280px)', true, { getInitialValueInEffect: false })
  const shown = useMemo(() => {
    const wide = { sm, md, lg }
    return columns.filter((column) => !column.meta?.from || wide[column.meta.from])
  }, [columns, sm, md, lg])

  const table = useReactTable({
    data: rows,
    columns: shown,
    state: { sorting },
    onSortingChange: setSorting,
    getRowId: rowId,
    getCoreRowModel: getCoreRowModel(),
    getSortedRowModel: getSortedRowModel(),
  })
  const model = table.getRowModel().rows
  const scroller = useRef<HTMLDivElement>(null)
  const virtual = useVirtualizer({
    count: model.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW,
    overscan: 8,
    initialRect: { width: 1000, height: 700 },
  })
  const drawn = virtual.getVirtualItems()
  const before = drawn[0]?.start ?? 0
  const after = virtual.getTotalSize() - (drawn.at(-1)?.end ?? 0)

  return (
    <div
      ref={scroller}
      className="table-scroll card"
      role="region"
      aria-label={label}
      tabIndex={0}
      style={height ? { ['--table-height' as string]: height } : undefined}
    >
      <table className="table" aria-rowcount={model.length + 1}>
        <colgroup>
          {shown.map((column, i) => (
            <col key={i} style={{ width: (sm ? undefined : column.meta?.narrow) ?? column.meta?.width }} />
          ))}
        </colgroup>
        <thead>
          {table.getHeaderGroups().map((group) => (
            <tr key={group.id} aria-rowindex={1}>
              {group.headers.map((header) => {
                const sorted = header.column.getIsSorted()
                const can = header.column.getCanSort()
                const content = flexRender(header.column.columnDef.header, header.getContext())
                return (
                  <th
                    key={header.id}
                    scope="col"
                    className={header.column.columnDef.meta?.numeric ? 'num' : undefined}
                    aria-sort={sorted === 'asc' ? 'ascending' : sorted === 'desc' ? 'descending' : undefined}
                  >
                    {can ? (
                      <button type="button" onClick={header.column.getToggleSortingHandler()}>
                        {content}
                        {sorted && <Icon name={sorted === 'asc' ? 'up' : 'down'} size={14} />}
                      </button>
                    ) : (
                      content
                    )}
                  </th>
                )
              })}
            </tr>
          ))}
        </thead>
        <tbody>
          {before > 0 && (
            <tr className="spacer" aria-hidden="true">
              <td colSpan={shown.length} style={{ height: before }} />
            </tr>
          )}
          {drawn.map((item) => {
            const row = model[item.index]
            if (!row) return null
            return (
              <tr key={row.id} aria-rowindex={item.index + 2} data-row={row.id}>
                {row.getVisibleCells().map((cell) => (
                  <td key={cell.id} className={cell.column.columnDef.meta?.numeric ? 'num' : undefined}>
                    {flexRender(cell.column.columnDef.cell, cell.getContext())}
                  </td>
                ))}
              </tr>
            )
          })}
          {after > 0 && (
            <tr className="spacer" aria-hidden="true">
              <td colSpan={shown.length} style={{ height: after }} />
            </tr>
          )}
          {model.length === 0 && (
            <tr>
              <td colSpan={shown.length} className="quiet">
                {t('common.nothingMatches')}
              </td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  )
}

/** A main line with a quieter one under it, inside one row's height. */
export function Two({ main, sub }: { main: React.ReactNode; sub?: React.ReactNode }) {
  return (
    <span className="two">
      {main}
      {sub ? <small>{sub}</small> : null}
    </span>
  )
}
