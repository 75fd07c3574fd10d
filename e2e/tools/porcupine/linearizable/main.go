// Checks histories of tags for linearizability with porcupine.
//
// It reads one operation per line, as JSON, from the file in its argument, and writes one verdict per tag to its
// standard output. A tag is a register that holds a digest or nothing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// A tag whose history takes longer than this to check is reported as undecided.
const patience = 20 * time.Second

// One operation on a tag.
type operation struct {
	// Returned with the verdict.
	ID  uint64 `json:"id"`
	Tag string `json:"tag"`
	// write, delete, delete-digest (removes the tag if it names that digest) or read.
	Kind string `json:"kind"`
	// The digest; empty when a read found no tag.
	Value string `json:"value"`
	// When the request was sent and its response was complete, in nanoseconds.
	Call int64 `json:"call"`
	// Null when its outcome is unknown: it may take effect at any time after its call, or never.
	Return *int64 `json:"return"`
}

type verdict struct {
	Tag        string `json:"tag"`
	Operations int    `json:"operations"`
	// Ok, Illegal or Unknown (undecided in time).
	Result porcupine.CheckResult `json:"result"`
	// If illegal: the operations of a small part of the history that is illegal by itself.
	Explanation []uint64 `json:"explanation"`
}

var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		operation := input.(operation)
		switch operation.Kind {
		case "write":
			return true, operation.Value
		case "delete":
			return true, ""
		case "delete-digest":
			if state == operation.Value {
				return true, ""
			}
			return true, state
		case "read":
			return state == operation.Value, state
		}
		panic("unknown kind of operation: " + operation.Kind)
	},
}

// Leaves out pushes of unknown outcome that no operation observed: the history is legal with them if it is legal
// without them, and each would double the number of orders to try.
func observable(history []operation) []operation {
	var kept []operation
	for at, one := range history {
		if one.Kind != "write" || one.Return != nil || !removable(history, at) {
			kept = append(kept, one)
		}
	}
	return kept
}

func check(history []operation) porcupine.CheckResult {
	history = observable(history)
	operations := make([]porcupine.Operation, len(history))
	for i, one := range history {
		operations[i] = porcupine.Operation{ClientId: i, Input: one, Call: one.Call, Return: math.MaxInt64}
		if one.Return != nil {
			operations[i].Return = *one.Return
		}
	}
	return porcupine.CheckOperationsTimeout(register, operations, patience)
}

// Whether the history without this operation is legal whenever the history with it is. What remains illegal after
// its removal is then a violation by itself.
func removable(history []operation, at int) bool {
	one := history[at]
	for i, other := range history {
		if i == at {
			continue
		}
		switch one.Kind {
		case "write":
			// No operation observed the value: another one overwrote it, or it was the last one.
			if other.Value == one.Value && other.Kind != "delete" {
				return false
			}
		case "delete", "delete-digest":
			// Only a read that found no tag can depend on a deletion.
			if other.Kind == "read" && other.Value == "" {
				return false
			}
		}
	}
	return true
}

func explain(history []operation) []uint64 {
	for changed := true; changed; {
		changed = false
		for at := 0; at < len(history); at++ {
			if !removable(history, at) {
				continue
			}
			smaller := append(append([]operation{}, history[:at]...), history[at+1:]...)
			if check(smaller) == porcupine.Illegal {
				history, changed = smaller, true
				at--
			}
		}
	}
	ids := make([]uint64, len(history))
	for i, one := range history {
		ids[i] = one.ID
	}
	return ids
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: linearizable HISTORY (a file of JSON lines)")
	}
	file, err := os.Open(os.Args[1])
	if err != nil {
		return err
	}
	defer file.Close()
	histories := map[string][]operation{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one operation
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		histories[one.Tag] = append(histories[one.Tag], one)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	tags := make([]string, 0, len(histories))
	for tag := range histories {
		tags = append(tags, tag)
	}
	sort.Strings(tags)
	output := json.NewEncoder(os.Stdout)
	for _, tag := range tags {
		history := histories[tag]
		result := verdict{Tag: tag, Operations: len(history), Result: check(history), Explanation: []uint64{}}
		if result.Result == porcupine.Illegal {
			result.Explanation = explain(history)
		}
		if err := output.Encode(result); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "linearizable:", err)
		os.Exit(1)
	}
}
