# For jobs that come back by themselves. The next one is in the queue before the work begins, so that a job that is
# killed comes back too. A job script sources this file once it knows the checkout ($home), and sets
#   name, of its files: slurm/NAME.stop, which a person makes to end it, and slurm/NAME.next
#   work, what it does, as in: the next sync, 24 syncs
# shellcheck shell=bash disable=SC2154 # home, name and work are the script's

fail() { echo "error: $1" >&2; exit 2; }

# not_if_stopped: ends the job where a person asked for it.
not_if_stopped() {
  if [ -e "$home/slurm/$name.stop" ]; then
    echo "slurm/$name.stop is there: not coming back"
    exit 0
  fi
}

# take_the_site: what slurm/launch takes from the site: its modules, and the Python that tools/ are to use.
take_the_site() {
  if [ -n "${TRAINYARD_SITE:-}" ]; then
    set +u -a && source "$home/slurm/sites/$TRAINYARD_SITE.sh" && set -u +a
    # shellcheck disable=SC2086 # several modules
    [ -z "${TRAINYARD_MODULES:-}" ] || module load $TRAINYARD_MODULES
  fi
}

# check_minutes VARIABLE MINUTES: refuses a time that is none.
check_minutes() {
  [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || fail "$1 is no number of minutes, from 1 on; correct it"
}

# come_back SCRIPT JOB-NAME MINUTES [OPTION-OF-SBATCH ...]: brings the next job into the queue, and enters the checkout.
come_back() {
  local script=$1 job=$2 minutes=$3 awaited number said
  shift 3
  # this file holds the id of the job that comes next, and how many in a row have not ended well by then; a job that a
  # person submits was not awaited, and its count begins at 0
  following="$home/slurm/$name.next"
  failures=0
  if [ -n "${SLURM_JOB_ID:-}" ] && [ -f "$following" ]; then
    read -r awaited number < "$following"
    if [ "$awaited" = "$SLURM_JOB_ID" ]; then
      [[ $number =~ ^[0-9]+$ ]] && failures=$number
    else # of an earlier submission: one job that comes back is enough
      scancel --state=PENDING --name="$job" "$awaited" 2>/dev/null
    fi
  fi
  again="then submit $script again"
  too_many="24 ${work}s in a row failed or were killed: not coming back; see their logs, $again"
  if [ "$failures" -ge 24 ]; then
    echo "error: $too_many" >&2
    exit 1
  fi
  cd "$home" || exit 2
  # a key of its own for each: SLURM may start this job once more, and it comes back once all the same
  key=$name-after-${SLURM_JOB_ID:-none-$$}
  # singleton: never two of them at once
  said=$("$home/tools/submit" --key "$key" --dependency=singleton --begin="now+${minutes}minutes" "$@" "$script") ||
    fail "the next $work cannot be submitted; see above, $again"
  next=""
  [[ $said =~ ([0-9]+) ]] && next=${BASH_REMATCH[1]}
  if ! echo "$next $((failures + 1))" > "$following"; then
    stay_away
    fail "$following cannot be written to: not coming back; give it to yourself, $again"
  fi
}

# stay_away: takes the next job back.
stay_away() {
  [ -z "$next" ] || "$home/tools/submit" --withdraw "$key"
  rm -f "$following"
}

# leave CODE: ends the job; it comes back unless another try would be refused again (2), or too many have failed.
leave() {
  if [ "$1" -eq 0 ]; then
    echo "$next 0" > "$following"
  elif [ "$1" -eq 2 ]; then
    stay_away
    echo "error: another try would be refused again: not coming back; correct what is named above, $again" >&2
  elif [ "$failures" -ge 23 ]; then
    stay_away
    echo "error: $too_many" >&2
  fi
  clear_away
  exit "$1"
}

# clear_away: how this job itself was submitted is of no more use.
clear_away() {
  [ -z "${trainyard_submission:-}" ] || rm -rf -- "$trainyard_submission"
}
