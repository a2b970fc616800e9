"""How much a stranger can make this node hold, read, or wait for: every bound in one table.

A stranger is a peer, a hub or its mirror, a caller of a door, or the author of a commit: a sender of bytes that this
node reads. Each constant is the most that is allowed, has its unit in the name, and says what happens beyond it.
`docs/en/reference/security.md` has the same table with the test of each bound; `tests/project/documents` compares the
two. Pure.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# Doors: requests of callers, and how long these hold connections, memory and upload slots.

MAX_HEAD_BYTES = 64 * KIB
"""Bytes of the head and the trailers of one request together. More: 431, and the connection is closed."""
MAX_HEADERS = 128
"""Headers of one request. More: 431, and the connection is closed."""
MAX_PIPELINED_REQUESTS = 32
"""Requests on one connection that wait for earlier responses. More: the connection is closed."""
FIRST_BYTE_SECONDS = 5.0
"""Seconds without a byte on a new connection before it is closed."""
HEAD_SECONDS = 10.0
"""Seconds from the first byte of a request to the end of its head before the connection is closed."""
MAX_DOOR_CONNECTIONS = 512
"""Connections at one door; fewer where the system allows few open files. More: an idle connection of the host with the
most is closed, or the new one gets 503."""
MAX_HOST_CONNECTIONS = 128
"""Connections of one address at the LAN door. More: its oldest idle connection is closed, or the new one gets 503."""
MAX_PREFIX_CONNECTIONS = 256
"""Connections of one IPv6 /64, whose addresses may all belong to one machine. More: as for one address."""
MAX_GUEST_CONNECTIONS = 128
"""Connections of all other machines at the endpoint, apart from those of local tools. More: as for one address."""
MAX_GUEST_HOST_CONNECTIONS = 32
"""Connections of one other machine at the endpoint. More: as for one address."""
MAX_OPEN_PAGES = 16
"""Open pages of a browser that are kept up to date: those of the daemon's user, and apart from them all others. More:
503."""
MAX_CONTROL_CONNECTIONS = 128
"""Connections at the control socket. More: the oldest idle connection is closed, or the new one gets 503."""
RESERVED_FILES = 256
"""File descriptors that connections leave free for files, downloads and the catalog."""
BODY_STALL_SECONDS = 30.0
"""Seconds without LEAST_BODY_BYTES of a request's body before the connection is closed."""
LEAST_BODY_BYTES = 16 * KIB
"""Bytes of a body that must arrive in BODY_STALL_SECONDS, unless it ends before."""
MAX_BODY_BYTES = 8 * MIB
"""Bytes of a request's body that the endpoint reads into memory. More: 400, and the connection is closed."""
MAX_GUEST_BODY_BYTES = 2 * MIB
"""The same for a caller on another machine."""
MAX_UNPACKED_BYTES = 32 * MIB
"""Bytes of such a body after unpacking: 600,000 objects in a request of git. More: 400."""
MAX_GUEST_UNPACKED_BYTES = 4 * MIB
"""The same for a caller on another machine."""
MAX_HELD_BYTES = 48 * MIB
"""Bytes of all bodies that the endpoint holds at once, each counted by its declared length. More: 503 with a
`Retry-After`, before the body is read."""
MAX_GUESTS_HELD_BYTES = 16 * MIB
"""The part of it for all callers on other machines together."""
MAX_GUEST_HELD_BYTES = 8 * MIB
"""The part of it for one other machine."""
MAX_LFS_OBJECTS = 10_000
"""Objects in one batch request of git-lfs, which itself sends at most 100. More: 400."""
MAX_GATHERED_FETCHES = 500
"""Commits and programs whose fetches through the endpoint are gathered for the history. More: the oldest is written."""
BODY_SECONDS = 120.0
"""Seconds for such a body as a whole. More: 400, and the connection is closed."""
UPLOAD_STALL_SECONDS = 10.0
"""Seconds in which a caller must take LEAST_TAKEN_BYTES of a blob or batch while another waits for an upload slot.
Slower: the connection is closed."""
UPLOAD_SHARE_SECONDS = 3.0
"""Seconds that a caller waits for an upload slot while another holds two more than it. Then the oldest upload of the
caller with the most slots is ended."""
MAX_BATCHES = 4
"""Batches sent at once, half of them to one caller. More: 503 after some seconds."""
MAX_DIGESTED_BLOBS = 2
"""Blobs read at once to tell the digests of their pieces, half of them for one caller. More: 503 after some seconds."""
STALL_SECONDS = 60.0
"""Seconds in which a caller must take LEAST_TAKEN_BYTES of a response. Slower: the connection is closed."""
CONTROL_STALL_SECONDS = 3600.0
"""The same at the control socket, whose callers are commands of the owner: a terminal may stop one for a while."""
LEAST_TAKEN_BYTES = 16 * KIB
"""Bytes of a response that a caller must take in STALL_SECONDS. A slow reader takes more; a reader of a byte now and
then is a stall."""

# Peers: catalogs, listings, addresses, announcements.

MAX_CATALOG_BYTES = 4 * MIB
"""Bytes of the catalog of one peer as sent. A peer with more is kept without its catalog, and still asked for blobs."""
MAX_HOST_CATALOG_BYTES = 4 * MIB
"""Bytes in memory for the catalogs of all peers at one host. Peers beyond are kept without their catalogs."""
MAX_CATALOGS_BYTES = 16 * MIB
"""Bytes in memory for all catalogs. Beyond, catalogs of the host with the most are dropped for a host with less, and
any for a configured peer."""
MAX_HOST_CATALOG_BURST_BYTES = 8 * MIB
"""Bytes of catalogs read from one host in one go, however often it announces new ones."""
CATALOG_BYTES_PER_SECOND = 128 * KIB
"""Bytes of catalogs read from one host per second after such a burst."""
MAX_REVISIONS_OF_REPO = 500
"""Revisions of one repo read from one catalog. The others are ignored."""
MAX_REVISION_REFS = 64
"""Refs of one revision read from a catalog. The others are ignored."""
MAX_LISTING_BYTES = 64 * MIB
"""Bytes of a manifest from a peer; 100,000 files take about 20 MB. More is a fault of the peer."""
LARGE_MESSAGE_BYTES = MIB
"""Bytes of a message that needs no room in MAX_LARGE_MESSAGES_BYTES."""
MAX_LARGE_MESSAGES_BYTES = 128 * MIB
"""Bytes of all large messages that are read at once; the next one waits. They are parsed one at a time."""
MIN_BYTES_PER_ITEM = 8
"""Least bytes per JSON value, on average, of a large message or of a large answer of a hub. A denser one, which would
take 30 times its size in memory, is a fault of its sender. Real ones have 15."""
SMALL_MESSAGE_BYTES = 64 * KIB
"""Bytes of a peer's message about itself, its peers, or one ref. More is a fault of the peer."""
MAX_PIECE_MAP_BYTES = 4 * MIB
"""Bytes of a piece map, and of a line of a have log. More is a fault of the peer."""
MESSAGE_SECONDS = 60.0
"""Seconds for one message of a peer as a whole, however steadily it arrives. Then the peer counts as not answering."""
SMALL_MESSAGE_SECONDS = 10.0
"""The same for a small message."""
MAX_PROBES = 16
"""Peers probed at once. The others wait."""
MAX_HOST_PROBES = 4
"""Peers at one IP address probed at once. The others wait."""
GREETING_SECONDS = 5.0
"""Seconds that an add waits for peers that are being probed. Then it goes on with those that answered."""
RETURN_SECONDS = 1.0
"""Seconds that an add waits for peers that failed lately and are probed again, as no other has its commit."""
REFRESH_SECONDS = 15.0
"""Seconds that a search waits for new catalogs of peers. Then it goes on with the catalogs it has."""
MAX_GOSSIPED_PEERS = 64
"""Addresses read from one peer's list of its peers. The others are ignored."""
MAX_GOSSIPED_MEMBERS = 32
"""Members of a swarm read from one line of a have log. The others are ignored."""
MAX_ADDRESSES = 8
"""Addresses kept of one peer, configured ones first. The others are ignored."""
MAX_PEERS = 512
"""Peers that were not configured. A new one replaces a peer that is gone, or is ignored."""
MAX_PEERS_PER_HOST = 64
"""Such peers at one IP address. The others are ignored."""
MAX_UNANSWERED_PER_PEER = 32
"""Addresses told by one peer that have not answered yet. The others are ignored."""
MAX_UNANSWERED_PER_HOST = 64
"""The same for all peers at one IP address together."""
MAX_UNANSWERED = 256
"""The same for all peers together."""
MAX_NAME_ADDRESSES = 256
"""Addresses of one DNS name among the configured peers, and hosts of its SRV records. The others are ignored."""
MAX_REGISTERED_NODES = 512
"""Nodes read from the registry. Of more, a random choice at each look."""
MAX_REGISTRATION_BYTES = 4 * KIB
"""Bytes of the entry of one node in the registry. A longer one is ignored."""

# Requests of other nodes to add something.

MAX_REQUESTED_TRANSFERS = 100
"""Transfers that other nodes asked for and that are not over. More: 503, and the other node asks again later."""
MAX_REQUEST_BYTES = 64 * KIB
"""Bytes of such a request. More: 400."""
REQUEST_SECONDS = 10.0
"""Seconds for such a request as a whole. Then it is refused: 400."""
MAX_ASKED_PATTERNS = 64
"""Files that it names, and patterns of each kind. With more it is malformed: 400."""
MAX_ASKED_PATTERN_CHARACTERS = 512
"""Characters of one of them. With more it is malformed: 400."""
MAX_TICKETS = 1000
"""Such requests whose progress is told. Beyond, the oldest is forgotten, and its node asks anew."""
MAX_REQUEST_WAITS = 64
"""Questions for the progress of such requests that wait at once for its end. More are answered at once."""
MAX_HEARD_LIMITS = 16
"""Hubs of which one peer's word about their limits is read. The others are ignored."""
MAX_REFUSED_NODES = 64
"""Nodes of which it is remembered that a request of theirs was refused, so that each is logged once."""

# Hubs: headers, hints, redirects.

MAX_RETRY_AFTER_SECONDS = 300.0
"""Longest rest of a peer, or of ModelScope. A longer `Retry-After` is cut to it."""
MAX_RATE_LIMIT_SECONDS = 3600.0
"""Longest rest of a hub that limits requests. A longer `Retry-After` or `RateLimit` is cut to it."""
MAX_ANSWER_BYTES = 64 * MIB
"""Bytes of one answer of a hub's API after unpacking. More is a fault of the hub."""
MAX_PAGES = 2000
"""Pages of one listing of a hub. More is a fault of the hub: such a listing has no end."""
MAX_ELEMENTS = 2_000_000
"""Elements of one listing of a hub, all pages together. More is a fault of the hub."""
MAX_PAGES_BYTES = 256 * MIB
"""Bytes of one listing of a hub, all pages together; a million files take about this. More is a fault of the hub."""
MAX_SMALL_BODY_BYTES = 64 * KIB
"""Bytes of a refusal or redirect that are read to keep its connection open. With a longer body the connection is
closed."""
MAX_MISSING_PATHS = 20_000
"""Paths missing from a hub's listing that are asked for one by one. A listing that lacks more is refused."""
MAX_FILES_ASKED_FOR = 2_000
"""Files of one commit that a hub without a list of digests is asked for one by one. A commit with more is refused."""
MAX_ODD_POINTERS = 256
"""LFS pointers of one commit that are not in canonical form and have to be fetched. A commit with more is refused."""
MAX_REDIRECTS = 10
"""Redirects followed for one answer of a hub. More is a fault of the hub."""
MAX_ADDRESSES_TRIED = 8
"""Addresses of a redirect's host that are checked and tried."""
MAX_HINT_HEADER_CHARACTERS = 1024
"""Characters read of a `RateLimit` header. The rest is ignored."""

# ModelScope: its listings, its waits, the file in which its tools keep the token.

MAX_SITE_LISTINGS = 2000
"""Requests for one listing of a repo at ModelScope. A repo that takes more cannot be pushed to."""
MAX_SITE_WAITS_SECONDS = 900.0
"""Seconds of all rests that one question, blob or commit waits for at ModelScope. A site that asks for more counts as
unreachable."""
MAX_COOKIE_FILE_BYTES = MIB
"""Bytes of the file in which ModelScope's tools keep the token. A larger one counts as no token."""

# Commits and listings, from any source.

MAX_PATH_BYTES = 4096
"""Bytes of the path of a file in a repo. A file with a longer path is listed and named to the user, and never written
to the disk."""
MAX_PATH_SEGMENTS = 128
"""Parts of such a path, folders and file name together. A deeper file is treated the same."""
MAX_SEGMENT_BYTES = 255
"""Bytes of one part of it, the limit of file systems. A file with a longer part is treated the same."""
MAX_MANIFEST_FILES = 1_000_000
"""Files and other entries of a commit, whatever source lists it. A larger listing is refused."""
MAX_MANIFEST_PATH_BYTES = 128 * MIB
"""Bytes of all their paths; a million ordinary ones take 60 MB. A larger listing is refused."""
MAX_ARCHIVE_INDEX_BYTES = 256 * MIB
"""Bytes of the index of an archive, and of all its manifests together. An archive with more is refused."""
MAX_SET_INFO_BYTES = 64 * MIB
"""Bytes of the `dataset_info.json` of a prepared set. A set with more is refused."""
MAX_SET_MANIFEST_BYTES = 16 * MIB
"""Bytes of the manifest of a prepared set; 100,000 shards take 14 MB. A set with more is refused."""
MAX_FOLDER_PATH_BYTES = 64 * MIB
"""Bytes of the paths of all folders that the endpoint lists of one commit. The other folders are left out."""
MAX_TREES = 1_000_000
"""Folders of a commit. A listing with more is refused: proving it would take too long."""
MAX_COMMIT_BYTES = MIB
"""Bytes of a commit object, with its headers, signature and message. A listing with a larger one is refused."""
MAX_COMMIT_LINE_CHARACTERS = 4096
"""Characters of the author or committer line of a commit. A longer one is shown as unknown, without a date."""
MAX_ATTRIBUTES_BYTES = MIB
"""Bytes of all `.gitattributes` files of a folder. A folder with more is not published."""
MAX_ATTRIBUTES_RULES = 1000
"""Rules on `filter` in them; each may be tried for each file. A folder with more is not published."""
MAX_ATTRIBUTES_LINE_BYTES = 2048
"""Bytes of a line of a `.gitattributes`. A longer one is ignored, as git does."""
MAX_PACK_BYTES = 64 * MIB
"""Bytes of a hub's git answer with a commit and its trees. With more the commit stays without a proof."""
MAX_GIT_LINES = 100_000
"""Lines of such an answer, each of up to 64 KB. With more the commit stays without a proof."""
MAX_REPEATED_ENTRIES = 200_000
"""Entries of folders that equal other folders of the commit: a few kilobytes can name any number of them. With more the
commit stays without a proof."""
MAX_TREE_BYTES = 32 * MIB
"""Bytes of one folder of a commit, or another object of such a pack; half a million files take this. With more the
commit stays without a proof."""
MAX_UNPACKED_PACK_BYTES = 96 * MIB
"""Bytes of all objects of such a pack, deltas included, as the pack declares them; a million files take 70 MB. With
more the commit stays without a proof."""

# Places: folders of other tools, which other users may have filled.

MAX_PLACE_FILES = 500_000
"""Files of one place that are listed. The others are left out, and the user is told."""
MAX_PLACE_DEPTH = 32
"""Folders of a place, one in the other. Deeper ones are left out, and the user is told."""
MAX_PLACE_TEXT_BYTES = 4 * MIB
"""Bytes of one file with another tool's notes, such as a list of hashes. A larger one counts as missing."""
MAX_PLACE_TEXTS_BYTES = 64 * MIB
"""Bytes of all such files of one place. Beyond, the others count as missing."""

MAX_UNPACKED_CLONE_BYTES = 4096 * MIB
"""Bytes of all objects that are unpacked to list the files of one clone, deltas included. With more it has no list."""
MAX_DELTA_DEPTH = 4095
"""Deltas in a row of an object in a clone, the limit of git itself. An object with more counts as missing."""

# Transfers: how long one source may keep others waiting.

NEAR_HOLD_SECONDS = 3.0
"""Seconds that a peer may hold a request below its floor before other sources get it, if there are any."""
FAR_HOLD_SECONDS = 5.0
"""The same for a hub."""
HOLD_FLOOR_BYTES_PER_SECOND = 64 * KIB
"""Bytes per second below which a source loses its hold on a request."""
NEAR_FLOOR_BYTES_PER_SECOND = MIB
"""Bytes per second below which a peer is asked beside the hubs, and no longer before them."""
CLAIM_SECONDS = 3.0
"""Seconds that a claim on a piece counts before the usual time of a piece is known. Then others are asked for the
piece."""
WITHOUT_CREDIT_SECONDS = 30.0
"""Seconds without credit for a source that kept others waiting and delivered nothing. It doubles each time."""
LONGEST_WITHOUT_CREDIT_SECONDS = 1920.0
"""The most that it doubles to."""
MAX_CREDIT_ACCOUNTS = 1024
"""Sources whose loss of credit is remembered. Beyond, the source that was met longest ago is forgotten."""
NEWS_NUMBERS_PER_SECOND = 20_000
"""Pieces, digests and members per second that a followed peer may tell. Its have log is read no faster, so that the
peer has to wait."""
NEWS_LINES_PER_SECOND = 50
"""The same for lines of its have log."""
NEWS_BURST_SECONDS = 0.5
"""Seconds by which a have log may be ahead of these two rates."""
HOLD_FILES = 30
"""Small files that a peer must give in NEAR_HOLD_SECONDS, unless it gives HOLD_BYTES. Slower: others are asked before
it."""
HOLD_BYTES = MIB
"""Bytes of small files that count as much as HOLD_FILES."""
NEAR_FLOOR_FILES_PER_SECOND = 100
"""Small files per second below which a peer that is also below its floor in bytes is asked beside the hubs, and no
longer before them."""
MAX_HUB_MISSES = 8
"""Small files in a row that a hub refuses or gives with wrong bytes before it is not asked for the rest."""
DISPUTE_SECONDS = 5.0
"""Seconds that a piece waits for a seed after two peers told different digests of it. Then neither digest counts."""
