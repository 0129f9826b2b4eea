# Sets the golden image up at the only sign-in of its administrator: drivers and guest agent, cloudbase-init, Vietnamese,
# the browser, rest; then it is generalized and switched off. Started from the answer disc; it stops at the first fault
# and leaves its log on the desktop.
$ErrorActionPreference = 'Stop'
Start-Transcript -Path C:\Windows\Temp\tram-setup.log
try {
    $here = Split-Path -Parent $MyInvocation.MyCommand.Path
    $settings = Get-Content -Raw -Encoding UTF8 (Join-Path $here 'settings.json') | ConvertFrom-Json

    function Find-OnDiscs([string]$name) {
        foreach ($drive in Get-PSDrive -PSProvider FileSystem) {
            $path = Join-Path $drive.Root $name
            if (Test-Path $path) { return $path }
        }
        throw "$name is on no disc"
    }
    function Invoke-Installer([string]$file, [string[]]$arguments) {
        $done = Start-Process -FilePath $file -ArgumentList $arguments -Wait -PassThru
        # 3010: done, wants a restart, which sysprep brings.
        if ($done.ExitCode -notin 0, 3010) { throw "$file ended with $($done.ExitCode)" }
    }
    function Set-Policy([string]$path, [string]$name, $value, [string]$type = 'DWord') {
        if (-not (Test-Path $path)) { New-Item -Path $path -Force | Out-Null }
        New-ItemProperty -Path $path -Name $name -Value $value -PropertyType $type -Force | Out-Null
    }

    # Drivers, the guest agent, SPICE's agent.
    Invoke-Installer (Find-OnDiscs 'virtio-win-guest-tools.exe') '/install', '/quiet', '/norestart'
    Set-Service -Name QEMU-GA -StartupType Automatic

    $msi = Find-OnDiscs 'tram\CloudbaseInitSetup_x64.msi'
    if ($settings.cloudbase_sha256) {
        $found = (Get-FileHash -Algorithm SHA256 $msi).Hash
        if ($found -ne $settings.cloudbase_sha256) { throw "$msi is not the file whose SHA-256 was given: $found" }
    }
    Invoke-Installer 'msiexec.exe' '/i', "`"$msi`"", '/qn', '/norestart', 'RUN_SERVICE_AS_LOCAL_SYSTEM=1'
    $cloudbase = 'C:\Program Files\Cloudbase Solutions\Cloudbase-Init'
    Copy-Item (Join-Path $here 'cloudbase-init*.conf') "$cloudbase\conf\" -Force
    New-Item -ItemType Directory -Force "$cloudbase\LocalScripts" | Out-Null
    Copy-Item (Join-Path $here 'hostname.ps1') "$cloudbase\LocalScripts\" -Force
    Copy-Item (Join-Path $here 'clone.xml') 'C:\Windows\System32\Sysprep\tram-clone.xml' -Force

    # Vietnamese: format, sorting, and typing by Telex and VNI, for whoever signs in after this.
    $languages = New-WinUserLanguageList -Language 'vi-VN'
    $languages[0].InputMethodTips.Clear()
    $service = '042A:{C2CB2CF0-AF47-413E-9780-8BC3A3C16068}'
    $languages[0].InputMethodTips.Add($service + '{5FB02EC5-0A77-4684-B4FA-DEF8A2195628}')
    $languages[0].InputMethodTips.Add($service + '{591AE943-56BE-48F6-8966-06B43915CC5A}')
    $languages.Add('en-US')
    Set-WinUserLanguageList -LanguageList $languages -Force
    Set-Culture -CultureInfo 'vi-VN'
    Set-WinHomeLocation -GeoId 251
    # Windows 11 only; on 10 the answer file's own settings remain.
    if (Get-Command Copy-UserInternationalSettingsToSystem -ErrorAction SilentlyContinue) {
        Copy-UserInternationalSettingsToSystem -WelcomeScreen $true -NewUser $true
    }

    # The portal first, managed bookmarks, no questions at the first start.
    $edge = 'HKLM:\SOFTWARE\Policies\Microsoft\Edge'
    Set-Policy $edge 'RestoreOnStartup' 4
    Set-Policy "$edge\RestoreOnStartupURLs" '1' $settings.portal 'String'
    Set-Policy $edge 'HomepageLocation' $settings.portal 'String'
    Set-Policy $edge 'HideFirstRunExperience' 1
    Set-Policy $edge 'FavoritesBarEnabled' 1
    Set-Policy $edge 'DiagnosticData' 0
    $favorites = @(@{ toplevel_name = 'Dịch vụ công' }) + @($settings.bookmarks | ForEach-Object { @{ name = $_.name; url = $_.url } })
    Set-Policy $edge 'ManagedFavorites' (ConvertTo-Json -Compress -InputObject $favorites) 'String'

    # Nobody sits at the machine: no sleep, no screen of its own going dark, no lock that asks for a password there is none of.
    foreach ($what in 'standby-timeout-ac', 'hibernate-timeout-ac', 'monitor-timeout-ac') { powercfg.exe /change $what 0 }
    powercfg.exe /hibernate off
    # Telemetry, consumer offers and the store's own installs are not an office's.
    Set-Policy 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\DataCollection' 'AllowTelemetry' 0
    Set-Policy 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\CloudContent' 'DisableWindowsConsumerFeatures' 1
    Set-Policy 'HKLM:\SOFTWARE\Policies\Microsoft\WindowsStore' 'AutoDownload' 2
    # Its screen is reached through Tram alone.
    Set-Policy 'HKLM:\SYSTEM\CurrentControlSet\Control\Terminal Server' 'fDenyTSConnections' 1
    # An account without a password signs in at the machine's own screen, nowhere else.
    Set-Policy 'HKLM:\SYSTEM\CurrentControlSet\Control\Lsa' 'LimitBlankPasswordUse' 1
    # Smart cards and signing tokens.
    Set-Service -Name SCardSvr -StartupType Automatic

    # A package of the store that only this account has stops sysprep.
    Get-AppxPackage | Where-Object { -not $_.NonRemovable -and $_.SignatureKind -eq 'Store' } |
        Remove-AppxPackage -ErrorAction SilentlyContinue
    Disable-LocalUser -Name 'Administrator'
    Stop-Transcript
    & "$env:SystemRoot\System32\Sysprep\sysprep.exe" /generalize /oobe /shutdown /mode:vm `
        /unattend:C:\Windows\System32\Sysprep\tram-clone.xml
} catch {
    Write-Output $_
    Stop-Transcript
    Copy-Item C:\Windows\Temp\tram-setup.log "$env:PUBLIC\Desktop\tram-setup-FAILED.txt"
    exit 1
}
