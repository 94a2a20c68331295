#!/bin/sh
# user-data of the demonstration's guests: looks, again and again, who in the subnet answers on port 7777, and writes
# what it sees to the console: "demo: round 3 sees db-01 web-01".
prefix=$(ip -o -4 addr show eth0 | awk '{ split($4, a, "."); print a[1] "." a[2] "." a[3] }')
round=0
while [ "$round" -lt 600 ]; do
    round=$((round + 1))
    rm -rf /run/demo
    mkdir /run/demo
    for last in 2 3 4 5 6 7 8 9; do
        nc -w 2 "$prefix.$last" 7777 < /dev/null > "/run/demo/$last" 2>/dev/null &
    done
    wait
    echo "demo: round $round sees $(sed -n 's/^hello from \([^ ]*\) .*/\1/p' /run/demo/* | sort -u | tr '\n' ' ')"
    sleep 1
done
