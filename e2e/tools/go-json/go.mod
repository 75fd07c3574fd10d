module entrepot/e2e/tools/go-json

go 1.26

tool entrepot/e2e/tools/go-json/go-manifest
