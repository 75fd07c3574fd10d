module entrepot/e2e/tools/porcupine

go 1.26

tool entrepot/e2e/tools/porcupine/linearizable

require github.com/anishathalye/porcupine v1.3.1
