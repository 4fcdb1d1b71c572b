"""What Redis does atomically, in Lua. The layout that these scripts keep is described in the README.

KEYS of every script: meta hash, set of id digests, list of id digests oldest first, set of all spaces.
ARGV[1] is always the prefix of the space's episode keys.

Redis refuses a script's *first* write when its memory is full and lets the following ones pass. Therefore the
first write of append stores the episode (all or nothing), and the first write of trim and delete frees memory (they
work on a full Redis, which is when they are needed).
"""

from __future__ import annotations

SCHEMA_VERSION = 2
"""What the meta hash and the episodes of a space mean. It grows when a version of before would misread them; fields
that it does not know do not matter to it, and stay."""
SCHEMA_WHOLE = 1
"""Of spaces that a version of before reads rightly: all but the parts of a buffer that is spread over shards, which it
would take for the whole."""

_EVICT = """
local function evict(meta, prefix, capacity, spared)
  local head, tail = tonumber(redis.call('HGET', meta, 'head')), tonumber(redis.call('HGET', meta, 'next'))
  local rows, bytes = tonumber(redis.call('HGET', meta, 'rows')), 0
  local first, before = head, rows
  while capacity > 0 and rows > capacity and head < tail - spared do
    local key = prefix .. string.format('%d', head)
    local header = redis.pcall('GETRANGE', key, 0, 7)
    if type(header) == 'string' and #header == 8 and string.sub(header, 1, 4) == 'NEP1' then
      rows = rows - struct.unpack('<I4', header, 5) - 1
      bytes = bytes + redis.call('STRLEN', key)
    end
    redis.call('UNLINK', key)
    head = head + 1
  end
  if head > first then
    redis.call('HINCRBY', meta, 'head', head - first)
    redis.call('HINCRBY', meta, 'rows', rows - before)
    redis.call('HINCRBY', meta, 'bytes', -bytes)
  end
  return head - first
end
"""

# ARGV: prefix, incarnation, capacity rows (0: none), registry member, config, schema -> 1 if made, 0 if it was there.
CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'incarnation', ARGV[2], 'capacity', ARGV[3], 'config', ARGV[5], 'next', 0, 'head', 0,
           'rows', 0, 'bytes', 0, 'env_steps', 0, 'updates', 0, 'schema', ARGV[6])
redis.call('SADD', KEYS[4], ARGV[4])
return 1
"""

# -> {fields and values of the meta hash, known ids}. A script, since a full Redis refuses what is queued in a
# transaction, and must still be read.
META = "return {redis.call('HGETALL', KEYS[1]), redis.call('SCARD', KEYS[2])}"

# ARGV: prefix, incarnation, expected sequence number, id digest, episode, transitions, task, remembered ids
# -> {status, next, head, env steps, task env steps, task episodes, evicted}
APPEND = (
    _EVICT
    + """
local meta, ids, order = KEYS[1], KEYS[2], KEYS[3]
if redis.call('HGET', meta, 'incarnation') ~= ARGV[2] then return {'gone'} end
local number = tonumber(redis.call('HGET', meta, 'next'))
local capacity = tonumber(redis.call('HGET', meta, 'capacity'))
local status, evicted = 'duplicate', 0
if redis.call('SISMEMBER', ids, ARGV[4]) == 0 then
  if number ~= tonumber(ARGV[3]) then return {'behind'} end
  status = 'stored'
  redis.call('SET', ARGV[1] .. string.format('%d', number), ARGV[5])
  redis.call('SADD', ids, ARGV[4])
  redis.call('HINCRBY', meta, 'next', 1)
  redis.call('HINCRBY', meta, 'rows', ARGV[6] + 1)
  redis.call('HINCRBY', meta, 'bytes', #ARGV[5])
  redis.call('HINCRBY', meta, 'env_steps', ARGV[6])
  redis.call('HINCRBY', meta, 'steps:' .. ARGV[7], ARGV[6])
  redis.call('HINCRBY', meta, 'episodes:' .. ARGV[7], 1)
  evicted = evict(meta, ARGV[1], capacity, 1)
  if capacity > 0 then
    redis.call('RPUSH', order, ARGV[4])
    local held = number + 1 - tonumber(redis.call('HGET', meta, 'head'))
    while redis.call('LLEN', order) > held + tonumber(ARGV[8]) do
      redis.call('SREM', ids, redis.call('LPOP', order))
    end
  end
end
local counts = redis.call('HMGET', meta, 'next', 'head', 'env_steps', 'steps:' .. ARGV[7], 'episodes:' .. ARGV[7])
return {status, counts[1], counts[2], counts[3], counts[4] or '0', counts[5] or '0', evicted}
"""
)

# ARGV: prefix, incarnation, capacity rows, config -> evicted, or -1 if the space is gone.
CONFIGURE = (
    _EVICT
    + """
if redis.call('HGET', KEYS[1], 'incarnation') ~= ARGV[2] then return -1 end
local evicted = evict(KEYS[1], ARGV[1], tonumber(ARGV[3]), 0)
redis.call('HSET', KEYS[1], 'capacity', ARGV[3], 'config', ARGV[4])
return evicted
"""
)

# ARGV: prefix, registry member, episodes at a time -> episodes left. Losing the incarnation marks the space as
# being deleted: appends are refused from then on, and a deletion cut short is finished at the next start.
DELETE = """
local meta = KEYS[1]
redis.call('HDEL', meta, 'incarnation')
local head, tail = tonumber(redis.call('HGET', meta, 'head')), tonumber(redis.call('HGET', meta, 'next'))
if head then
  local stop = math.min(tail, head + tonumber(ARGV[3]))
  for number = head, stop - 1 do redis.call('UNLINK', ARGV[1] .. string.format('%d', number)) end
  if stop < tail then
    redis.call('HINCRBY', meta, 'head', stop - head)
    return tail - stop
  end
end
redis.call('UNLINK', meta, KEYS[2], KEYS[3])
redis.call('SREM', KEYS[4], ARGV[2])
return 0
"""

# ARGV: prefix, incarnation, updates. Never goes back.
RAISE_UPDATES = """
if redis.call('HGET', KEYS[1], 'incarnation') == ARGV[2]
   and tonumber(redis.call('HGET', KEYS[1], 'updates')) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'updates', ARGV[3])
end
"""
