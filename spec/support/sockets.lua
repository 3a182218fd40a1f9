-- Kinds of sockets for specs of operations on all of them.

local socket = require "socket"
local support = require "spec.support"

local M = {}

local function unix(type)
  return function() return socket.socketpair(socket.AF_UNIX, type) end
end

local function tcp(family)
  return function() return support.tcp(family) end
end

local function udp(family)
  return function() return support.udp(family) end
end

-- Each kind by its name: a function that gives a connected pair.
M.STREAMS = {
  ["TCP over IPv4"] = tcp(socket.AF_INET), ["TCP over IPv6"] = tcp(socket.AF_INET6),
  ["a Unix stream"] = unix(socket.SOCK_STREAM),
}
M.MESSAGES = {
  ["UDP over IPv4"] = udp(socket.AF_INET), ["UDP over IPv6"] = udp(socket.AF_INET6),
  ["Unix datagrams"] = unix(socket.SOCK_DGRAM), ["Unix seqpackets"] = unix(socket.SOCK_SEQPACKET),
}

-- The modes in which a socket that has something to do behaves alike: what each is called, and its timeout.
M.MODES = {{"blocking", nil}, {"with a timeout", 5}, {"with a short timeout", 0.03}, {"non-blocking", 0}}

return M
