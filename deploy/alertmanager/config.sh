#!/bin/sh
# Writes Alertmanager's configuration, which cannot read variables itself: config.sh FILE.
#   ALERT_WEBHOOK                         an address that gets each group of alerts by POST, as JSON
#   ALERT_EMAIL_TO, ALERT_EMAIL_FROM      addresses for mail, and its sender
#   ALERT_SMTP                            HOST:PORT of the server for that mail
#   ALERT_SMTP_USER, ALERT_SMTP_PASSWORD  what the server asks for, if it does
#   ALERT_SMTP_TLS                        false: the server has no TLS, and stands beside us
set -eu

fail() {
    echo "alertmanager: $1" >&2
    exit 2
}
# A text in YAML.
quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/''/g")"; }

[ $# = 1 ] || fail "usage: $0 FILE"
[ -n "${ALERT_WEBHOOK:-}${ALERT_EMAIL_TO:-}" ] ||
    fail "alerts would go nowhere: set NEWT_COMPOSE_ALERT_WEBHOOK, or NEWT_COMPOSE_ALERT_EMAIL_TO with _EMAIL_FROM and _SMTP"
if [ -n "${ALERT_EMAIL_TO:-}" ]; then
    [ -n "${ALERT_EMAIL_FROM:-}" ] || fail "mail needs a sender: set NEWT_COMPOSE_ALERT_EMAIL_FROM"
    [ -n "${ALERT_SMTP:-}" ] || fail "mail needs a server: set NEWT_COMPOSE_ALERT_SMTP to HOST:PORT"
fi
case "${ALERT_SMTP_TLS:-true}" in
true | false) ;;
*) fail "NEWT_COMPOSE_ALERT_SMTP_TLS is '$ALERT_SMTP_TLS', expected true or false" ;;
esac

umask 077 # there may be a password in it
{
    cat <<'YAML'
route:
  receiver: people
  group_by: [alertname]  # of an alert that fires for four simulators, one message
  group_wait: 10s
  group_interval: 1m
  repeat_interval: 12h
receivers:
  - name: people
YAML
    if [ -n "${ALERT_WEBHOOK:-}" ]; then
        printf '    webhook_configs:\n      - url: %s\n        send_resolved: true\n' "$(quoted "$ALERT_WEBHOOK")"
    fi
    if [ -n "${ALERT_EMAIL_TO:-}" ]; then
        printf '    email_configs:\n      - to: %s\n        from: %s\n        smarthost: %s\n' \
            "$(quoted "$ALERT_EMAIL_TO")" "$(quoted "$ALERT_EMAIL_FROM")" "$(quoted "$ALERT_SMTP")"
        printf '        require_tls: %s\n        send_resolved: true\n' "${ALERT_SMTP_TLS:-true}"
        if [ -n "${ALERT_SMTP_USER:-}" ]; then
            printf '        auth_username: %s\n        auth_password: %s\n' \
                "$(quoted "$ALERT_SMTP_USER")" "$(quoted "${ALERT_SMTP_PASSWORD:-}")"
        fi
    fi
} >"$1"
