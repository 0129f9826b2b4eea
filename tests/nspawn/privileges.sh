# shellcheck shell=bash disable=SC2016
# Sourced by packages.sh: the agent has no privileges; what needs some is done by its helpers, for it alone.

# ask_as WHO ROOM REQUEST: asks a helper and prints the answer. WHO: agent (its user, in its unit), or a user outside.
ask_as() {
    local move='' who=$1
    [ "$1" != agent ] || move='echo 0 >/sys/fs/cgroup/system.slice/tram-agent.service/cgroup.procs &&' who=tram-agent
    printf '%s\n' "$3" | spawn_run sh -c "$move exec setpriv --reuid=$who --regid=\$(id -g $who) --clear-groups \
        socat -t 120 - UNIX-CONNECT:/run/tram-agent/$2.sock"
}
# answers WHAT WHO ROOM REQUEST PATTERN
answers() {
    local said
    said=$(ask_as "$2" "$3" "$4" 2>&1) || true
    grep -qE "$5" <<<"$said" || fail "not so: $1 ($2 asked $3 for $4 and was answered: $said)"
    echo "    ok: $1"
}
# supported WHAT ACTION [ARGUMENT]: done by way of the controller and the link, as support would.
supported() {
    local what=$1 said
    shift
    said=$(spawn_run tram-controller admin diagnosis ask "$endpoint" "$@" --reason "a test" --json 2>&1) || true
    grep -qE '"(text_)?code": *"done"' <<<"$said" || fail "not so: $what ($* came to: $said)"
    echo "    ok: $what"
}

try_privileges() {
    local suite=$1 endpoint before exposed room limit pid
    say "$suite: the agent without privileges, and its helpers"
    endpoint=$(spawn_run tram-controller admin endpoint list --json | grep -o '"name": *"[^"]*"' | head -n1 | cut -d'"' -f4)
    apt install --no-install-recommends socat tcpdump
    # In CUPS' place: its name is on the list.
    printf '[Service]\nExecStart=/bin/sleep infinity\n' >"$machine/etc/systemd/system/cups.service"
    spawn_run systemctl daemon-reload
    spawn_run systemctl start cups
    pid=$(spawn_run systemctl show -p MainPID --value tram-agent)
    expect "the agent has no capability" in_there "! grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/$pid/status | grep -qv 0000000000000000"
    for room in helper disks capture; do
        expect "$room listens" spawn_run systemctl is-active tram-agent-$room.socket
    done
    expect "and none of them runs" in_there '[ -z "$(systemctl list-units --no-legend --plain "tram-agent-*@*.service")" ]'

    before=$(spawn_run systemctl show -p MainPID --value cups)
    supported "support has a service restarted" restart_unit unit=cups
    refuse "it is another process now" [ "$(spawn_run systemctl show -p MainPID --value cups)" = "$before" ]
    expect "the journal says who asked for what" in_there \
        'journalctl --no-pager -u "tram-agent-helper@*" | grep -q "asks: {.ask.:.restart_unit.,.unit.:.cups.}"'
    supported "support reads a service's journal" journal unit=cups

    answers "another user is not let in" nobody helper '{"ask":"reboot"}' 'Permission denied'
    answers "root is not the agent" root helper '{"ask":"reboot"}' '"why":"peer"'
    answers "nor is its user outside its unit" tram-agent helper '{"ask":"reboot"}' '"why":"peer"'
    answers "rubbish is no request" agent helper 'GET / HTTP/1.1' '"why":"malformed"'
    answers "nor is a unit that is not on the list" agent helper '{"ask":"restart_unit","unit":"ssh"}' '"why":"malformed"'
    answers "each room has its own" agent disks '{"ask":"reboot"}' '"why":"room"'
    echo restart_unit >"$machine/etc/tram/deny"
    answers "what is forbidden here is not done" agent helper '{"ask":"restart_unit","unit":"cups"}' '"why":"denied"'
    rm "$machine/etc/tram/deny"
    answers "an interface's address is asked for anew" agent helper '{"ask":"renew_dhcp","interface":"host0"}' '"is":"ran","code":0'
    answers "nobody is signed in at the screen" agent helper '{"ask":"log_out"}' '"is":"ran","code":0'
    answers "there is no such disk" agent disks '{"ask":"smart_read","disk":"nosuch"}' '"why":"not_that"'
    answers "there is no such USB port" agent helper '{"ask":"usb_cycle","port":"9-9.9"}' '"why":"not_that"'
    refuse "nobody has restarted the computer so far" test -e "$machine/run/systemd/shutdown/scheduled"
    answers "the computer is restarted in a minute" agent helper '{"ask":"reboot"}' '"is":"ran","code":0'
    expect "systemd has it in its book" in_there 'test -e /run/systemd/shutdown/scheduled'
    spawn_run shutdown -c
    (for _ in 1 2 3 4 5 6; do healthy >/dev/null || true; sleep 0.5; done) &
    answers "headers of packets are seen" agent capture '{"ask":"capture","seconds":4}' '127\.0\.0\.1.*tcp'
    wait $!
    until_true 30 "every helper has ended" in_there '[ -z "$(systemctl list-units --no-legend --plain --state=active,activating "tram-agent-*@*.service")" ]'
    expect "and none of them failed" in_there '[ -z "$(systemctl --failed --no-legend --plain "tram-agent-*")" ]'
    until_true 60 "the agent tells systemd that it is alive" in_there \
        '[ "$(systemctl show -p WatchdogTimestampMonotonic --value tram-agent)" -gt "$(systemctl show -p ExecMainStartTimestampMonotonic --value tram-agent)" ]'
    for limit in tram-agent:2.0 tram-agent-helper@x:2.0 tram-agent-disks@x:2.0 tram-agent-capture@x:2.0; do
        exposed=$(exposure "${limit%:*}.service")
        echo "    systemd-analyze security ${limit%:*}.service: $exposed"
        expect "${limit%:*} is exposed ${limit#*:} at most" awk "BEGIN { exit !(${exposed:-10} <= ${limit#*:}) }"
    done
}
