/** Errors, each with the stable code that `tine explain` tells more about. */

/** Bytes that are not a value of the wanted type. */
export class DecodeError extends Error {
  override readonly name = "DecodeError";

  constructor(
    /** Stable code. */
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** A value that its type cannot hold: a mistake of the program. */
export class EncodeError extends Error {
  override readonly name = "EncodeError";
}

/** A connection that could not be made. */
export class ConnectError extends Error {
  override readonly name = "ConnectError";

  constructor(
    /** Stable code. */
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** A call that the transport failed, or answered in the service's place. */
export class CallError extends Error {
  override readonly name = "CallError";

  constructor(
    /** Stable code. */
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** What a service itself says went wrong. */
export class ServiceError extends Error {
  override readonly name = "ServiceError";
}
