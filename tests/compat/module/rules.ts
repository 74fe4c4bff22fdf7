/** Who sees which rows. */
import { club } from "./schema";

export const notesAreTheirOwners = club.clientVisibilityFilter.sql("SELECT * FROM note WHERE owner = :sender");
export const secretsAreForMembers = club.clientVisibilityFilter.sql(
  "SELECT room_secret.* FROM room_secret JOIN membership ON room_secret.room = membership.room " +
    "WHERE membership.member = :sender"
);
