package distribute

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"weir/policy"
)

// record says where the documents of a cluster come from. It is written with them, at [etcd.Layout.Sync].
type record struct {
	// Distribution is the name of the document that says what the cluster gets, and Rules identify what it says of the cluster.
	Distribution string `json:"distribution"`
	Rules        string `json:"rules"`
	// Source is where the documents were read, as it was at Revision; Written is when any of them was written last.
	Source   string `json:"source"`
	Revision int64  `json:"revision"`
	Written  int64  `json:"written"`
	// By is the process that wrote them, as in host:pid.
	By string `json:"by"`
}

func (r record) encode() []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic("BUG: cannot encode a record: " + err.Error())
	}
	return data
}

func parseRecord(data []byte) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("cannot read the record of who brings documents here: %w", err)
	}
	return r, nil
}

// same reports whether two processes bring the same documents, so that neither undoes what the other does.
func (r record) same(other record) bool {
	return r.Distribution == other.Distribution && r.Rules == other.Rules
}

// digest identifies what a Distribution says of one cluster.
func (r rule) digest() string {
	target := r.target()
	data, err := json.Marshal(struct{ Prefix, Selector, Overlays any }{
		r.distribution.Spec.(*policy.DistributionSpec).From.Prefix, target.Selector, target.Overlays,
	})
	if err != nil {
		panic("BUG: cannot encode a decoded document: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
