#compdef dlx
# Completion of dlx command lines in zsh; printed by `dlx completion zsh`.
_dlx() {
  local -a lines fields ending open
  local line entry
  lines=("${(@f)$("${(Q)words[1]/#\~/$HOME}" __complete zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
  if [[ $lines[1] != words && $PREFIX == --*=* ]]; then
    compset -P '*='
  fi
  case $lines[1] in
    files) _files ;;
    folders) _files -/ ;;
    words)
      for line in "${(@)lines[2,-1]}"; do
        fields=("${(@ps:\t:)line}")
        entry="${fields[1]//:/\\:}:${fields[3]}"
        if [[ $fields[2] == ends ]]; then ending+=("$entry"); else open+=("$entry"); fi
      done
      local result=1
      (( $#ending )) && _describe -t values value ending && result=0
      (( $#open )) && _describe -t parts 'beginning of a value' open -S '' && result=0
      return result
      ;;
    *) return 1 ;;
  esac
}
compdef _dlx dlx
if [[ $funcstack[1] == _dlx ]]; then  # autoloaded from a folder of $fpath
  _dlx "$@"
fi
