package etcd

import (
	"encoding/json"
	"fmt"
	"time"
)

// Change says who changed documents, when and why. It lies at [Layout.Change], is written in the transaction that writes the documents,
// and so its revisions, until the store forgets them, are the history of the documents. It gives orders to nobody but by
// ConfirmedRemovals.
type Change struct {
	// By is who it was, as in user@host. Nobody has checked it: etcd knows who logged in, this is what they call themselves.
	By string `json:"by"`
	// At is when, by the writer's own clock.
	At time.Time `json:"at"`
	// Message is why, in the writer's words; often empty.
	Message string `json:"message,omitempty"`
	// Command is what did it: apply, delete, rollback, sync.
	Command string `json:"command"`
	// Part and Parts count the transactions of a change that did not fit into one. Both are 0 for one that did.
	Part  int `json:"part,omitempty"`
	Parts int `json:"parts,omitempty"`
	// Confirmed says that the author means it that this very write removes many tenants.
	Confirmed bool `json:"confirmed,omitempty"`
	// ConfirmedRemovals is the revision before the latest write whose removal of many tenants its author confirmed. Later changes
	// carry it forward, so that a sidecar that was away learns of it, too. 0: there was none.
	ConfirmedRemovals int64 `json:"confirmedRemovals,omitempty"`
}

// ParseChange reads what [Change.Encode] wrote, and passes over fields that only later versions know.
func ParseChange(data []byte) (Change, error) {
	var c Change
	if err := json.Unmarshal(data, &c); err != nil {
		return Change{}, fmt.Errorf("cannot read who changed documents last: %w", err)
	}
	return c, nil
}

// Encode writes c as JSON.
func (c Change) Encode() []byte {
	data, err := json.Marshal(c)
	if err != nil {
		panic("BUG: cannot encode a change: " + err.Error()) // only a year past 9999 cannot be
	}
	return data
}
