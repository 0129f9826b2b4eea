// A look inside the guest through its agent, for what a picture cannot prove. Needs virsh on this machine.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)
const uri = process.env.TRAM_LIBVIRT ?? 'qemu:///system'

async function agent(id, command) {
  const { stdout } = await run('virsh', ['-c', uri, 'qemu-agent-command', id, JSON.stringify(command)])
  return JSON.parse(stdout).return
}

/** True when this machine can ask the guest of the desktop `id`. */
export async function reachable(id) {
  return agent(id, { execute: 'guest-ping' }).then(
    () => true,
    () => false,
  )
}

/** The text of a small file in the guest. */
export async function readFile(id, path) {
  const handle = await agent(id, { execute: 'guest-file-open', arguments: { path, mode: 'r' } })
  try {
    const { 'buf-b64': data } = await agent(id, { execute: 'guest-file-read', arguments: { handle, count: 65_536 } })
    return Buffer.from(data, 'base64').toString('utf8')
  } finally {
    await agent(id, { execute: 'guest-file-close', arguments: { handle } })
  }
}
