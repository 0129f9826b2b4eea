/** A file of an archive. */
export interface Member {
  name: string
  text: string
  /** Who may read it, as in `chmod`. */
  mode: number
}

const BLOCK = 512

/** A tar archive (ustar) of short text files, so that what belongs together is carried together and keeps its rights. */
export function tar(members: Member[], seconds: number): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder()
  const blocks: Uint8Array[] = []
  for (const member of members) {
    const body = encoder.encode(member.text)
    const head = new Uint8Array(BLOCK)
    const put = (at: number, text: string) => head.set(encoder.encode(text), at)
    const octal = (n: number, width: number) => n.toString(8).padStart(width - 1, '0')
    put(0, member.name)
    put(100, octal(member.mode, 8))
    put(108, octal(0, 8))
    put(116, octal(0, 8))
    put(124, octal(body.length, 12))
    put(136, octal(seconds, 12))
    put(148, ' '.repeat(8))
    put(156, '0')
    put(257, 'ustar\0' + '00')
    put(265, 'root')
    put(297, 'root')
    put(148, octal(head.reduce((sum, byte) => sum + byte, 0), 7) + '\0 ')
    const padded = new Uint8Array(Math.ceil(body.length / BLOCK) * BLOCK)
    padded.set(body)
    blocks.push(head, padded)
  }
  const end = BLOCK * 2
  const out = new Uint8Array(blocks.reduce((sum, block) => sum + block.length, end))
  let at = 0
  for (const block of blocks) {
    out.set(block, at)
    at += block.length
  }
  return out
}
