# Names a clone as Tram calls its desktop: the controller writes `io.systemd.credential:system.hostname=NAME` among the
# OEM strings of the machine's firmware, where Linux desktops find it, too. cloudbase-init runs this once, before anybody
# signs in; 1001 asks it for a restart and for not being run again, 1002 for being run again next time.
$name = (Get-CimInstance Win32_ComputerSystem).OEMStringArray |
    ForEach-Object { if ($_ -match '^io\.systemd\.credential:system\.hostname=([a-z0-9-]{1,50})$') { $Matches[1] } } |
    Select-Object -First 1
if (-not $name) { exit 1002 }
# Windows allows 15; the end tells desktops of one pool apart.
if ($name.Length -gt 15) { $name = $name.Substring($name.Length - 15).TrimStart('-') }
if ($env:COMPUTERNAME -ieq $name) { exit 0 }
Rename-Computer -NewName $name -Force
exit 1001
