import { Table } from '@mantine/core'
import type { ReactNode } from 'react'

interface Props {
  /** What the table is of: it takes the keyboard, because it scrolls by itself where the window is narrower than it. */
  label: string
  head: string[]
  /** Its rows. */
  children: ReactNode
  /** Pixels below which it scrolls. */
  least?: number
}

/** A short table within a page: a head, and rows as they come. For long lists there is `DataTable`. */
export function Rows({ label, head, children, least }: Props) {
  return (
    <div style={{ overflowX: 'auto' }} tabIndex={0} role="group" aria-label={label}>
      <Table fz="sm" miw={least}>
        <Table.Thead>
          <Table.Tr>
            {head.map((h) => (
              <Table.Th key={h}>{h}</Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>{children}</Table.Tbody>
      </Table>
    </div>
  )
}
