/*
 * tine_ipc: calls between local processes, over Unix sockets and shared memory.
 *
 * The suffix of a path chooses the transport: `.sock` or `.shm`. Payloads are bytes; generated code
 * puts types on top. Link libtine_ipc.so, or libtine_ipc.a with -lpthread -ldl -lm.
 *
 * Every function but the closing ones returns a status. After TINE_ERROR, tine_error_code and
 * tine_error_message say why, for the calling thread, until its next call. Nothing waits for longer
 * than the limit that it is given, in milliseconds.
 *
 * Handles of clients, streams, servers and senders may be used from any thread; closing one while
 * another thread uses it is a mistake of the program. A responder is used once.
 */
#ifndef TINE_IPC_H
#define TINE_IPC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tine_status {
  /* Done. */
  TINE_OK = 0,
  /* Nothing came, or there was no room, within the limit. */
  TINE_WAIT = 1,
  /* The end of a stream, or nobody wants more of it, or the server was shut down. */
  TINE_END = 2,
  /* It failed: see tine_error_code. */
  TINE_ERROR = 3
} tine_status;

typedef struct tine_client tine_client;
typedef struct tine_stream tine_stream;
typedef struct tine_server tine_server;
typedef struct tine_responder tine_responder;
typedef struct tine_sender tine_sender;

/* Bytes that the library gave: to be freed with tine_bytes_free. */
typedef struct tine_bytes {
  uint8_t *data;
  size_t length;
} tine_bytes;

/* A request that a server got. */
typedef struct tine_request {
  tine_bytes payload;
  /* Answers it; to be used once. */
  tine_responder *responder;
  /* The process that asks. */
  uint32_t uid;
  int32_t pid;
  /* Whether it asks for a stream. */
  int32_t wants_stream;
} tine_request;

/* Why the last call of this thread failed: a stable code such as "TN0921", and words. Valid until the
 * next call of this thread. */
const char *tine_error_code(void);
const char *tine_error_message(void);

/* Frees bytes. Those without data are fine. */
void tine_bytes_free(tine_bytes bytes);

/* Connects. `schema` is 32 bytes, or null for any server. */
tine_status tine_client_connect(const char *path, const uint8_t *schema, uint32_t limit_ms,
                                tine_client **client);

/* Sends a request and waits for its reply. */
tine_status tine_client_call(tine_client *client, const uint8_t *request, size_t length,
                             uint32_t limit_ms, tine_bytes *reply);

/* Sends a request; the outcome will come from tine_client_poll with this token. */
tine_status tine_client_submit(tine_client *client, uint64_t token, const uint8_t *request,
                               size_t length);

/* Waits for an outcome: TINE_OK or TINE_ERROR are that of the call with `token`, TINE_WAIT is none. */
tine_status tine_client_poll(tine_client *client, uint32_t limit_ms, uint64_t *token,
                             tine_bytes *reply);

/* A descriptor that is readable while outcomes wait to be polled. It stays the client's. */
int tine_client_descriptor(tine_client *client);

/* Ends the connection and frees the handle. Null is fine. */
void tine_client_close(tine_client *client);

/* Sends a request that is answered by a stream, of which at most `credit` items are under way. */
tine_status tine_client_stream(tine_client *client, const uint8_t *request, size_t length,
                               uint32_t credit, uint32_t limit_ms, tine_stream **stream);

/* The next item, or TINE_END with the service's last word, which may be empty. */
tine_status tine_stream_next(tine_stream *stream, uint32_t limit_ms, tine_bytes *item);

/* Cancels the stream, if it has not ended, and frees the handle. Null is fine. */
void tine_stream_close(tine_stream *stream);

/* Listens. `schema` is 32 bytes, or null for any client. */
tine_status tine_server_listen(const char *path, const uint8_t *schema, uint32_t clients_max,
                               tine_server **server);

/* Waits for a request. TINE_WAIT: none came. TINE_END: the server was shut down. */
tine_status tine_server_next(tine_server *server, uint32_t limit_ms, tine_request *request);

/* Takes no further requests; every tine_server_next returns TINE_END. */
void tine_server_shutdown(tine_server *server, uint32_t flush_ms);

/* Shuts down, lets replies be written for so long, and frees the handle. Null is fine. */
void tine_server_close(tine_server *server, uint32_t flush_ms);

/* Each of these answers a request, and frees its responder. */
void tine_responder_ok(tine_responder *responder, const uint8_t *payload, size_t length);
void tine_responder_error(tine_responder *responder, const char *code, const char *message);
void tine_responder_drop(tine_responder *responder);
tine_sender *tine_responder_stream(tine_responder *responder);

/* Sends an item. TINE_WAIT: no room within the limit. TINE_END: the client wants no more. */
tine_status tine_sender_send(tine_sender *sender, const uint8_t *item, size_t length,
                             uint32_t limit_ms);

/* Each of these ends a stream, and frees its sender. */
void tine_sender_finish(tine_sender *sender, const uint8_t *last, size_t length);
void tine_sender_fail(tine_sender *sender, const char *code, const char *message);

#ifdef __cplusplus
}
#endif

#endif
